"""Where the Flower app (``pyproject.toml``, ``clients/``, ``server/``, ``simulations/``) lives on this machine."""

import sys
from pathlib import Path

from fedrec.errors import RunError

PACKAGE = Path(__file__).resolve().parent


def app_dir(package: Path = PACKAGE) -> Path:
    """Return the checkout root, or the copy that the wheel carries when there is no checkout.

    Raises:
        RunError: neither place holds a Flower app.
    """
    for place in (package.parent, package / "flowerapp"):
        if (place / "pyproject.toml").is_file() and (place / "clients").is_dir():
            return place
    raise RunError(
        f"no Flower app beside {package}: expected clients/ and pyproject.toml; reinstall fedrec or run from a checkout"
    )


def make_app_importable() -> Path:
    """Let ``import clients, server, simulations`` work in this process; return the folder they come from.

    First on the path, so that an unrelated package called ``server`` never answers instead. ``fedrec`` itself
    is already imported and stays what it is.
    """
    place = app_dir()
    if sys.path[:1] != [str(place)]:
        sys.path.insert(0, str(place))
    return place
