"""Every command explains itself in plain text, with an example where it has options."""

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
