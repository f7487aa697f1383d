"""The digest of the code a client runs: the same wherever it is installed, another after any change."""

import shutil
from pathlib import Path

import pytest

import fedrec.code
from fedrec.code import code_digest
from fedrec.paths import PACKAGE

ROOT = PACKAGE.parent
IGNORED = shutil.ignore_patterns("__pycache__", "flowerapp")


@pytest.fixture
def digest_of(monkeypatch):
    """The digest of an installation in another place."""

    def of(package: Path, app: Path) -> str:
        monkeypatch.setattr(fedrec.code, "PACKAGE", package)
        monkeypatch.setattr(fedrec.code, "app_dir", lambda: app)
        return code_digest.__wrapped__()

    return of


def _checkout(place: Path) -> tuple[Path, Path]:
    for part in ("fedrec", "clients"):
        shutil.copytree(ROOT / part, place / part, ignore=IGNORED)
    return place / "fedrec", place


def _wheel(place: Path) -> tuple[Path, Path]:
    shutil.copytree(ROOT / "fedrec", place / "fedrec", ignore=IGNORED)
    shutil.copytree(ROOT / "clients", place / "fedrec" / "flowerapp" / "clients", ignore=IGNORED)
    return place / "fedrec", place / "fedrec" / "flowerapp"


def test_checkout_and_wheel_have_one_digest(tmp_path, digest_of):
    assert digest_of(*_checkout(tmp_path / "a")) == digest_of(*_wheel(tmp_path / "b")) == code_digest()


@pytest.mark.parametrize("changed", ["fedrec/privacy/clipping.py", "clients/training.py"])
def test_one_changed_byte_changes_the_digest(tmp_path, digest_of, changed):
    place = _checkout(tmp_path / "a")
    path = tmp_path / "a" / changed
    path.write_bytes(path.read_bytes() + b"\n")
    assert digest_of(*place) != code_digest()


def test_added_file_changes_the_digest_and_moved_content_too(tmp_path, digest_of):
    place = _checkout(tmp_path / "a")
    (tmp_path / "a" / "clients" / "extra.py").touch()
    added = digest_of(*place)
    (tmp_path / "a" / "clients" / "extra.py").rename(tmp_path / "a" / "clients" / "other.py")
    assert len({added, digest_of(*place), code_digest()}) == 3


def test_code_that_touches_nobodys_data_does_not_count(tmp_path, digest_of):
    place = _checkout(tmp_path / "a")
    (tmp_path / "a" / "server").mkdir()
    (tmp_path / "a" / "server" / "app.py").write_text("pass")
    assert digest_of(*place) == code_digest()
