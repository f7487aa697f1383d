"""One process at a time, by a lock of the operating system's on a file: it goes with the process, however that ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(path: Path, *, waits: bool = True) -> Iterator[None]:
    """Hold the lock inside the block, against threads of this process too; as ``take``."""
    descriptor = take(path, waits=waits)
    try:
        yield
    finally:
        os.close(descriptor)


def take(path: Path, *, waits: bool) -> int:
    """Take a lock and return the descriptor that holds it until it is closed.

    Args:
        path: of the lock file, which stays; made, readable by its owner alone, when there is none.
        waits: for whoever holds it.

    Raises:
        BlockingIOError: somebody holds it, and this does not wait.
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
