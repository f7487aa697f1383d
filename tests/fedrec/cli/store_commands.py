"""A shop's store made by hand, and commands on it that must never say whose it holds."""

from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from fedrec.cli import app


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    """Run a command; nothing it says may hold ``secret``, and nothing may end it but itself."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert "secret" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def write_rows(path: Path) -> Path:
    """Three events of two people."""
    path.write_text("user_id,item_id,timestamp\nsecret-1,a,1\nsecret-1,b,2\nsecret-2,a,3\n")
    return path


def make_shop(path: Path, data: Path) -> Path:
    assert run("store", "import", path, "--data", data).exit_code == 0
    return path
