"""Which run is taken when nobody names one."""

import os
from pathlib import Path

import pytest

from fedrec.errors import RunError
from fedrec.newest import newest_run
from fedrec.runfolder import ADAPTER


def a_run(path: Path, *, ended: int | None) -> Path:
    """A folder that looks like a run; ``ended``: when its adapter was published, if it was."""
    path.mkdir(parents=True)
    (path / "config.toml").touch()
    if ended is not None:
        (path / ADAPTER).touch()
        os.utime(path / ADAPTER, (ended, ended))
    return path


def test_it_is_the_one_that_ended_last_whatever_its_name(tmp_path: Path) -> None:
    last = a_run(tmp_path / "a", ended=200)
    a_run(tmp_path / "z", ended=100)
    a_run(tmp_path / "unfinished", ended=None)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ADAPTER).touch()
    (tmp_path / "shop.sqlite").touch()
    assert newest_run(tmp_path) == last
    assert newest_run(a_run(tmp_path / "b", ended=200).parent) == tmp_path / "b"


def test_without_one_it_says_how_to_make_or_finish_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(
            RunError, match=r"no run here; make one with make simulate or fedrec simulate, or name a run"
        ):
            newest_run(folder)
    a_run(tmp_path / "half", ended=None)
    with pytest.raises(RunError, match=r"no run has ended; go on with fedrec simulate --out \S+/half --resume$"):
        newest_run(tmp_path)
