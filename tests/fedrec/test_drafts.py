"""A folder appears whole or not at all."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedrec.drafts import whole_folder
from fedrec.errors import RunError
from tests.tiny_run import ROOT

MAKER = """
import sys, time
from pathlib import Path
from fedrec.drafts import whole_folder
with whole_folder(Path(sys.argv[1])) as draft:
    (draft / "half").mkdir()
    (draft / "half" / "secret").write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


def made(out: Path, error: BaseException | None = None) -> None:
    with whole_folder(out) as draft:
        (draft / "file").write_text("whole")
        if error:
            raise error


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_its_owners_alone_and_there_is_no_draft_left(tmp_path: Path) -> None:
    made(tmp_path / "deep" / "out")
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == ["file"]
    assert (tmp_path / "deep" / "out").stat().st_mode & 0o777 == 0o700


def test_whatever_goes_wrong_leaves_nothing(tmp_path: Path) -> None:
    for error in (ValueError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            made(tmp_path / "out", error)
        assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_exists_is_never_overwritten(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir() if kind == "folder" else out.symlink_to("nowhere")
    with pytest.raises(RunError, match="out: exists; choose another place"):
        made(out)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("here", [".", "..", "/", "somewhere/.."])
def test_a_path_without_a_name_of_its_own_exists(here: str) -> None:
    with pytest.raises(RunError, match="exists; choose another place"), whole_folder(Path(here)):
        pytest.fail("it began")


def test_what_appears_meanwhile_is_not_overwritten_either(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="out: exists"), whole_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
    assert names(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"out: cannot be written: (Not a directory|File exists); choose another place"):
        made(tmp_path / "file" / "out")


def test_a_killed_process_leaves_nothing_half_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", MAKER, str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"half\n"
        with pytest.raises(RunError, match="another process is making this folder; wait for it"):
            made(out)
        maker.send_signal(signal.SIGKILL)
        maker.wait()
    assert names(tmp_path) == [".out.draft"]
    made(out)
    assert names(tmp_path) == ["out"]
    assert names(out) == ["file"]
