"""Every command explains itself in plain text, with an example where it has options, and at once."""

import subprocess
import sys

import pytest
import typer.main
from click import Command, Group
from typer.testing import CliRunner

from fedrec.cli import app


def _commands(command: Command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Command]:
    found = {path: command}
    if isinstance(command, Group):
        for name, inner in command.commands.items():
            found |= _commands(inner, (*path, name))
    return found


SLOW_TO_IMPORT = ("cryptography", "flwr", "matplotlib", "numpy", "polars", "safetensors", "torch", "transformers")
COMMANDS = _commands(typer.main.get_command(app))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_is_plain_text_that_says_what_the_command_does(path):
    shown = CliRunner().invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    assert COMMANDS[path].help
    assert "\\" not in shown.stdout
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize("path", [path for path in COMMANDS if path[:1] in (("privacy",), ("keys",))], ids=" ".join)
def test_commands_on_privacy_and_keys_show_examples_and_speak_json(path):
    command = COMMANDS[path]
    if not isinstance(command, Group):
        shown = CliRunner().invoke(app, [*path, "--help"]).stdout
        assert f"fedrec {' '.join(path)}" in shown
        assert "--json" in shown or path[-1] == "new"  # it writes one file and has nothing to tell


def test_help_loads_nothing_that_is_slow_to_import():
    asked = "import sys; from typer.testing import CliRunner; from fedrec.cli import app; "
    asked += "CliRunner().invoke(app, ['--help'], catch_exceptions=False); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    packages = {name.partition(".")[0] for name in loaded.split()}
    assert packages >= {"fedrec", "typer"}
    assert not packages & set(SLOW_TO_IMPORT)
