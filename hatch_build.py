"""Put the Flower app inside the wheel; an editable install reads it from the checkout instead.

A wheel of ours installs one top-level name, ``fedrec``. The folders of the other sides travel inside it,
with a second copy of the code of ``fedrec`` itself, so that ``fedrec/flowerapp/`` is a whole Flower app.
"""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("fedrec", "clients", "server", "simulations")
SHIPPABLE = {".py", ".toml"}


class BundleFlowerApp(BuildHookInterface):
    """Adds ``fedrec/flowerapp/``, code only."""

    def initialize(self, version: str, build_data: dict) -> None:
        """List the app's files one by one: ``force_include`` of a folder would ignore every exclude."""
        if version == "editable":
            return
        root = Path(self.root)
        files = [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.suffix in SHIPPABLE]
        for path in [*sorted(files), root / "pyproject.toml"]:
            name = path.relative_to(root).as_posix()
            build_data["force_include"][name] = f"fedrec/flowerapp/{name}"
