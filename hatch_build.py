"""Put the Flower app inside the wheel; an editable install reads it from the checkout instead.

A wheel of ours installs one top-level name, ``fedrec``. The folders of the other sides travel inside it,
with a second copy of the code of ``fedrec`` itself, so that ``fedrec/flowerapp/`` is a whole Flower app.
"""

import shutil
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("fedrec", "clients", "server", "simulations")
SHIPPABLE = {".py", ".toml"}
PAGE = Path("clients/serving/http/page")  # of fedrec serve; every file of it


class BundleFlowerApp(BuildHookInterface):
    """Adds ``fedrec/flowerapp/``: code, and the page of ``fedrec serve``.

    The code is staged outside the project: ``force_include`` takes a file of the project away from its own place,
    and a folder of the project with everything in it.
    """

    _stage: Path | None = None

    def initialize(self, version: str, build_data: dict) -> None:
        """Stage the code file by file and ask for the stage as ``fedrec/flowerapp``."""
        if version == "editable":
            return
        root, self._stage = Path(self.root), Path(tempfile.mkdtemp(prefix="fedrec-app-"))
        files = [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.suffix in SHIPPABLE]
        for path in [*sorted(files), *(root / PAGE).iterdir(), root / "pyproject.toml"]:
            target = self._stage / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        build_data["force_include"][str(self._stage)] = "fedrec/flowerapp"

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        """Clear the stage away."""
        if self._stage is not None:
            shutil.rmtree(self._stage, ignore_errors=True)
