"""The Flower app is found in a checkout and in a wheel, and nowhere else."""

import sys

import pytest

from fedrec import paths
from fedrec.errors import RunError


def make_app(folder):
    (folder / "clients").mkdir(parents=True)
    (folder / "pyproject.toml").touch()


def test_the_checkout_comes_first(tmp_path):
    make_app(tmp_path)
    make_app(tmp_path / "fedrec" / "flowerapp")
    assert paths.app_dir(tmp_path / "fedrec") == tmp_path


def test_the_copy_in_the_wheel_is_found_without_a_checkout(tmp_path):
    make_app(tmp_path / "fedrec" / "flowerapp")
    assert paths.app_dir(tmp_path / "fedrec") == tmp_path / "fedrec" / "flowerapp"


def test_no_app_at_all_is_one_clear_error(tmp_path):
    with pytest.raises(RunError, match=r"no Flower app beside .*: expected clients/ and pyproject\.toml; reinstall"):
        paths.app_dir(tmp_path / "fedrec")


def test_the_app_goes_first_on_the_path_and_only_once(monkeypatch):
    monkeypatch.setattr(sys, "path", ["somewhere"])
    place = paths.make_app_importable()
    paths.make_app_importable()
    assert sys.path == [str(place), "somewhere"]
