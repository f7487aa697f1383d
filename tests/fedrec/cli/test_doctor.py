"""``fedrec doctor``: one line a check, its mend below, and an exit code that a monitor understands."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrec.cli import app
from tests.tiny_server import Operator


def doctor(*words: object):
    return CliRunner().invoke(app, ["doctor", *map(str, words)])


def test_machine_alone_is_looked_at_without_a_config():
    result = doctor("--json")
    checks = json.loads(result.stdout)["checks"]
    assert [one["check"] for one in checks if one["check"] != "packages"] == ["python", "disk", "gpu"]
    assert {frozenset(one) for one in checks} == {frozenset({"check", "state", "said", "mend"})}


def test_server_in_order_ends_well_and_a_failed_check_ends_with_2_and_its_name(tmp_path: Path):
    operator = Operator.at(tmp_path)
    fine = doctor("--config", operator.config)
    assert fine.exit_code == 0, fine.output
    assert "warning  clients      nobody is enrolled" in fine.stdout
    assert "                      mend: fedrec enrol add NAME" in fine.stdout
    (tmp_path / "keys" / "server.pub").write_text("0" * 64)
    wrong = doctor("--config", operator.config, "--json")
    assert wrong.exit_code == 2
    assert json.loads(wrong.stdout)["failed"] == 1
    assert wrong.stderr == f"error: 1 of {len(json.loads(wrong.stdout)['checks'])} checks failed: keys\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"', "expected a server.toml with state = ..., or a client.toml with events = ..."),
        ('state = "state"', "keys"),
        ('events = "e.csv"', "name"),
        ("[", "c.toml"),
    ],
)
def test_file_that_is_neither_is_one_line(tmp_path: Path, text: str, said: str):
    (tmp_path / "c.toml").write_text(text)
    result = doctor("--config", tmp_path / "c.toml")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
