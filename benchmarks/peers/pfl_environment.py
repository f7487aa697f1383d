"""pfl in an environment of its own: it wants dp-accounting below 0.6, fedrec 0.6 and above.

The environment holds pfl and what conflicts; everything else, torch and Opacus among it, comes from this one, so that
pfl runs on the very same versions.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

FOLDER = "FEDREC_PFL_ENVIRONMENT"  # name of the environment variable that says where
REQUIREMENT = "pfl==0.6.*"
TIMEOUT_S = 300


def pfl_folder() -> Path:
    """Where the environment lies or will lie: outside the repository."""
    return Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "fedrec" / "pfl")


def pfl_python(folder: Path) -> Path:
    """The interpreter of the environment; made, with pip and the package index, where it is not there yet.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be made.
    """
    python = folder / "bin" / "python"
    if _works(python):
        return python
    _run(sys.executable, "-m", "venv", str(folder))
    own = _run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(own) / "beside_pfl.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT)
    return python


def _works(python: Path) -> bool:
    if not python.exists():
        return False
    return subprocess.run([python, "-c", "import pfl, torch"], capture_output=True, timeout=TIMEOUT_S).returncode == 0


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return done.stdout
