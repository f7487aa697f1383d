"""What a stranger installs: one name, the whole Flower app inside it, and a command that starts."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CARRIED = (
    "data/online_retail/online_retail.parquet",
    "data/online_retail/item_vectors.safetensors",
    "data/online_retail/ATTRIBUTION.md",
    "data/templates/check.html.j2",
    "report/templates/report.html.j2",
    "report/templates/report.css",
    "flowerapp/pyproject.toml",
)
PAGE = ROOT / "clients" / "serving" / "http" / "page"
FIND_THE_SIDES = """
from fedrec.paths import make_app_importable
print(make_app_importable())
import clients, server, simulations
print(clients.__file__, server.__file__, simulations.__file__)
"""
pytestmark = pytest.mark.slow


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, cwd=folder)
    return next(folder.glob("fedrec-*.whl"))


def test_the_wheel_installs_one_name_and_carries_code_data_and_templates(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].removesuffix(f"-{wheel.name.split('-')[1]}.dist-info") for name in names} == {"fedrec"}
    assert {f"fedrec/{name}" for name in CARRIED} <= set(names)
    for side in ("fedrec", "clients", "server", "simulations"):
        code = {path.relative_to(ROOT).as_posix() for path in (ROOT / side).rglob("*.py")}
        assert {f"fedrec/flowerapp/{name}" for name in code} <= set(names)
        assert side != "fedrec" or code <= set(names)


def test_the_flower_app_in_the_wheel_is_code_and_the_page(wheel):
    app = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("fedrec/flowerapp/")}
    page = {f"fedrec/flowerapp/{path.relative_to(ROOT).as_posix()}" for path in PAGE.iterdir()}
    assert len(page) == 8
    assert page <= app
    assert {Path(name).suffix for name in app - page} == {".py", ".toml"}


def test_the_installed_command_starts_and_finds_every_side(wheel, tmp_path):
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    python = venv / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=tmp_path)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "parent.pth").write_text(sysconfig.get_path("purelib"))  # torch and friends, but no editable fedrec
    assert "simulate" in run(venv / "bin" / "fedrec", "--help", cwd=tmp_path)
    found = run(python, "-c", FIND_THE_SIDES, cwd=tmp_path).split()
    assert all(place.startswith(str(site / "fedrec" / "flowerapp")) for place in found)
