"""A federation folder is begun, or gone on with, whatever a crash left in it."""

from pathlib import Path

import pytest

from fedrec.errors import ConfigError, RunError
from server.deployment import run_federation
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
