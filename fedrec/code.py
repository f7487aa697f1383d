"""Which code is this? A digest that a client's policy can pin."""

import hashlib
from functools import lru_cache
from pathlib import Path

from fedrec.paths import PACKAGE, app_dir

_PARTS = ("fedrec", "clients")  # all code that touches a person's data; see the table of folders in README.md


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over every Python file that a client runs, hex: the same for a checkout and an installed wheel.

    It says which fedrec is installed, not that the machine is honest: code that was replaced can also lie
    about its digest. What it catches is a change that nobody meant to accept.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_sources().items()):
        digest.update(f"{name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _sources() -> dict[str, Path]:
    """Each file by its name in the repository, wherever it is installed."""
    roots = {"fedrec": PACKAGE, "clients": app_dir() / "clients"}
    carried = PACKAGE / "flowerapp"  # the wheel's copy of the other folders, counted under their own names
    return {
        f"{part}/{path.relative_to(roots[part]).as_posix()}": path
        for part in _PARTS
        for path in roots[part].rglob("*.py")
        if carried not in path.parents or part != "fedrec"
    }
