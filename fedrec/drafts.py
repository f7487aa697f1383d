"""A folder that appears whole or not at all, whatever stops the process that makes it."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedrec.errors import RunError
from fedrec.privacy.durable import sync_folder


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``out``, of the owner alone, which becomes ``out`` when all went well.

    A process that was killed leaves the draft behind, under a name with a dot in front; the next one removes it.

    Raises:
        RunError: ``out`` exists, another process is making it, or it cannot be written.
    """
    if out.name in ("", ".."):  # the folder one is in, or above it
        raise RunError(f"{out}: exists; choose another place")
    draft = out.with_name(f".{out.name}.draft")
    try:
        _refuse_used(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = _taken(draft)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}; choose another place") from None
    try:
        yield draft
        _refuse_used(out)
        _sync(draft)
        draft.rename(out)
        sync_folder(out.parent)
    except BaseException as error:
        with suppress(OSError):
            shutil.rmtree(draft)
        if isinstance(error, OSError):
            raise RunError(f"{out}: cannot be written: {error.strerror}; choose another place") from None
        raise
    finally:
        os.close(lock)


def _refuse_used(out: Path) -> None:
    if os.path.lexists(out):
        raise RunError(f"{out}: exists; choose another place")


def _taken(draft: Path) -> int:
    """Make the draft, or empty what a killed process left of it; the descriptor holds the operating system's lock."""
    draft.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), draft.lstat()):  # the other process has just finished
            raise BlockingIOError
        for left in draft.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        raise RunError(f"{draft}: another process is making this folder; wait for it") from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _sync(folder: Path) -> None:
    """Make every file survive a power cut, before the name that says they are all there."""
    for path in (folder, *folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
