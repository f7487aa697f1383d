"""A run folder is taken by one process, refuses to be overwritten, and holds whole files only."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from fedrec import runfolder
from fedrec.errors import RunError
from fedrec.runfolder import RunFolder, read_events, write_arrays, write_bytes, write_json, write_text


def test_new_folder_has_a_place_for_everything(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "deep" / "run") as folder:
        assert all(path.is_dir() for path in (folder.base, folder.checkpoints, folder.workspace))
        assert all((folder.path / name).is_dir() for name in ("keys", "ledger"))
        files = (
            folder.config,
            folder.events,
            folder.adapter,
            folder.summary,
        )
        assert [path.name for path in files] == [
            "config.toml",
            "events.jsonl",
            "adapter.safetensors",
            "summary.json",
        ]
        assert all(path.parent == folder.path for path in files)


def test_existing_folder_without_resume_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r".*: exists; pass --resume or another --out"):
        RunFolder.create(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    RunFolder.create(tmp_path).close()


def test_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/run: cannot be a run folder: Not a directory; choose another --out"):
        RunFolder.create(tmp_path / "file" / "run")
    with pytest.raises(RunError, match=r"/proc/fedrec: cannot be a run folder: .*; choose another --out"):
        RunFolder.create(Path("/proc/fedrec"))


def test_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".lock").mkdir()
    with pytest.raises(RunError, match=r"cannot be a run folder: Is a directory; choose another --out"):
        RunFolder.open_for_resume(tmp_path)


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run to resume: expected a folder with checkpoints/; leave out --resume"):
        RunFolder.open_for_resume(tmp_path / "absent")


def test_folder_is_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    with pytest.raises(RunError, match="in use by another process; wait for it or choose another --out"):
        RunFolder.open_for_resume(folder.path)
    folder.close()
    RunFolder.open_for_resume(tmp_path / "run").close()


def test_a_killed_process_leaves_the_folder_free(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, pathlib; from fedrec.runfolder import RunFolder\n"
        "folder = RunFolder.create(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False, env=_environment())
    assert ended.returncode == -9
    RunFolder.open_for_resume(tmp_path / "run").close()


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(runfolder.__file__).parents[1])}


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.close()
    folder.close()


def test_resume_sweeps_away_what_a_crash_cut_short(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run").close()
    leftovers = [tmp_path / "run" / ".summary.json.1.tmp", tmp_path / "run" / "checkpoints" / ".round.1.tmp"]
    for leftover in leftovers:
        leftover.write_text("half")
    RunFolder.open_for_resume(tmp_path / "run").close()
    assert not any(leftover.exists() for leftover in leftovers)


def test_events_are_lines_that_come_back(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run") as folder:
        assert folder.read_events() == []
        folder.append_event({"round": 1, "panel_loss": np.float32(0.5), "reasons": {"twice": np.int64(2)}})
        folder.append_event({"round": 2, "panel_loss": float("nan"), "path": Path("a"), "list": [1, (2.5, None)]})
        assert folder.events.read_text().count("\n") == 2
        assert folder.read_events() == [
            {"round": 1, "panel_loss": 0.5, "reasons": {"twice": 2}},
            {"round": 2, "panel_loss": None, "path": "a", "list": [1, [2.5, None]]},
        ]
        folder.rewrite_events([{"round": 1}])
        assert folder.read_events() == [{"round": 1}]


def test_broken_event_line_is_named(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run") as folder:
        folder.events.write_text('{"round": 1}\n{"rou')
        with pytest.raises(RunError, match=r"events\.jsonl: line 2 is not JSON; resume the run to rewrite it"):
            folder.read_events()


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": float("inf"), "ü": "ü", 1: np.bool_(True)})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"x": None, "ü": "ü", "1": True}
    assert text.endswith("}\n")


def test_arrays_come_back_in_any_layout(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_arrays(tmp_path / "a.safetensors", {"a": values.T, "s": np.float32(3) * np.ones(())}, metadata={"k": "v"})
    read = load_file(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read["a"], values.T)
    assert read["s"].shape == ()


def test_same_arrays_and_metadata_give_the_same_bytes(tmp_path: Path) -> None:
    metadata = dict.fromkeys("abcdefgh", "ü\\n")
    written = set()
    for _ in range(8):
        write_arrays(tmp_path / "a.safetensors", {"x": np.ones(3), "ä": np.zeros(1)}, metadata=metadata)
        written.add((tmp_path / "a.safetensors").read_bytes())
    assert len(written) == 1
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as stored:
        assert stored.metadata() == metadata
        np.testing.assert_array_equal(stored.get_tensor("x"), np.ones(3))


def test_reader_of_the_old_file_keeps_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new and longer")
        assert reader.read() == "old"
    assert path.read_text() == "new and longer"


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"a\.txt: cannot be written: No space left on device; free space or choose"):
        write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_line_that_is_being_written_is_left_out_when_the_run_goes_on(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run") as folder:
        folder.events.write_text('{"round": 1}\n{"rou')
        assert read_events(folder.path, growing=True) == [{"round": 1}]


def test_line_that_the_disk_refuses_is_one_error_that_names_the_file(tmp_path):
    with RunFolder.create(tmp_path / "run") as folder:
        folder.events.mkdir()
        with pytest.raises(
            RunError, match=r"events\.jsonl: cannot be written: Is a directory; free space, then --resume"
        ):
            folder.append_event({"round": 1})
