"""A federation folder is begun, or gone on with, whatever a crash left in it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrec.cli import app
from fedrec.config import FederationConfig
from fedrec.errors import ConfigError, RunError
from server.deployment import DEADLINE_S, run_federation
from server.settings import ServerSettings
from tests.tiny_superlink import free_port


def begun(folder: Path, events: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "events.jsonl").write_text(events)
    return folder


def run(path: Path, *, resume: bool) -> None:
    settings = ServerSettings(keys=path / "keys", state=path / "state", superlink_port=free_port())
    run_federation(path, settings, until_round=None, resume=resume, on_round=lambda record: None)


def test_a_folder_in_which_rounds_were_run_needs_resume(tmp_path):
    with pytest.raises(RunError, match=r"spring: 1 rounds were run; go on with --resume"):
        run(begun(tmp_path / "spring", '{"round": 1}\n'), resume=False)


@pytest.mark.parametrize("left", ['{"round": 1}\n{"round": 2, "asked', '{"round": 1}\n\0\0\0\n'])
def test_a_line_that_a_crash_cut_short_keeps_nobody_from_resuming(left, tmp_path):
    with pytest.raises(ConfigError, match=r"spring/config\.toml: cannot be read"):  # what it lacks
        run(begun(tmp_path / "spring", left), resume=True)


def test_the_deadline_is_the_one_that_the_settings_and_the_flag_name():
    said = FederationConfig.model_fields["deadline_s"].description or ""
    assert f"when absent {DEADLINE_S:g} between machines" in said
    shown = CliRunner().invoke(app, ["federation", "new", "--help"], env={"COLUMNS": "200"}).stdout
    assert f"seconds to wait for replies in a round [{DEADLINE_S:g}]" in " ".join(shown.split())
