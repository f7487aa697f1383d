import pytest
import typer
from typer.testing import CliRunner

from fedrec.cli.errors import one_line_errors
from fedrec.errors import ConfigError, PrivacyError


def app_raising(error):
    app = typer.Typer()

    @app.command()
    @one_line_errors
    def command(name: str = "x") -> None:
        """Do it."""
        raise error

    return app


@pytest.mark.parametrize(("error", "code"), [(ConfigError("a\n  b"), 2), (PrivacyError("no budget"), 3)])
def test_a_mistake_is_one_line_on_stderr_and_the_errors_own_code(error, code):
    result = CliRunner().invoke(app_raising(error), [])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == "error: " + " ".join(str(error).split()) + "\n"


def test_a_bug_keeps_its_traceback():
    result = CliRunner().invoke(app_raising(ZeroDivisionError("bug")), [])
    assert isinstance(result.exception, ZeroDivisionError)


def test_options_and_help_survive_the_guard():
    result = CliRunner().invoke(app_raising(ConfigError("x")), ["--help"])
    assert result.exit_code == 0
    assert "Do it." in result.stdout
    assert "--name" in result.stdout
