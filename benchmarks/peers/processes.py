"""What a contender's processes use, children and grandchildren included, read from ``/proc`` (Linux).

They are found by a mark in their environment, which every child inherits, also one that leaves its parent's group.
"""

import os
from collections.abc import Iterator
from pathlib import Path

MARK = "FEDREC_BENCHMARK"


def marked(mark: str) -> list[Path]:
    """The ``/proc`` folders of all processes whose environment says ``MARK=mark``."""
    wanted = f"{MARK}={mark}".encode()
    return [folder for folder in _processes() if wanted in _read(folder / "environ").split(b"\0")]


def cpu_s(mark: str) -> float:
    """Processor time of the marked processes that are alive, with that of their children that have ended."""
    ticks = 0
    for folder in marked(mark):
        fields = _read(folder / "stat").rpartition(b")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mb(mark: str) -> float:
    """Sum of each process's own peak of resident memory, MB; what they share is in each of them."""
    kilobytes = 0
    for folder in marked(mark):
        for line in _read(folder / "status").splitlines():
            if line.startswith(b"VmHWM:"):
                kilobytes += int(line.split()[1])
    return kilobytes / 1024


def _processes() -> Iterator[Path]:
    return (folder for folder in Path("/proc").iterdir() if folder.name.isdigit())


def _read(path: Path) -> bytes:
    """A file of a process; empty where the process has gone, or is somebody else's."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
