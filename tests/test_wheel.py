"""What a stranger installs: one name, the whole Flower app inside it, and a command that starts."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    return next(folder.glob("fedrec-*.whl"))


def test_the_wheel_installs_one_name_and_carries_code_data_and_templates(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].removesuffix(f"-{wheel.name.split('-')[1]}.dist-info") for name in names} == {"fedrec"}
    for wanted in ("data/online_retail/online_retail.parquet", "report/templates/report.html.j2", "flowerapp/pyproject.toml"):
        assert f"fedrec/{wanted}" in names
    for side in ("fedrec", "clients", "server", "simulations"):
        assert f"fedrec/flowerapp/{side}/__init__.py" in names


def test_the_flower_app_in_the_wheel_is_code_only(wheel):
    app = [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("fedrec/flowerapp/")]
    assert {Path(name).suffix for name in app} == {".py", ".toml"}


def test_the_installed_command_starts_and_finds_every_side(wheel, tmp_path):
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    python = venv / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=tmp_path)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "parent.pth").write_text(sysconfig.get_path("purelib"))  # torch and friends, but no editable fedrec
    assert "simulate" in run(venv / "bin" / "fedrec", "--help", cwd=tmp_path)
    found = run(
        python,
        "-c",
        "from fedrec.paths import make_app_importable; print(make_app_importable()); import clients, server, simulations;"
        "print(clients.__file__, server.__file__, simulations.__file__)",
        cwd=tmp_path,
    ).split()
    assert all(place.startswith(str(site / "fedrec" / "flowerapp")) for place in found)
