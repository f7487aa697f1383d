from pathlib import Path

import polars as pl
import pytest

from fedrec.config import DataConfig
from fedrec.data import load
from fedrec.errors import ConfigError, DataError


@pytest.fixture
def files(tmp_path):
    pl.DataFrame({"who": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1, 2]}).write_parquet(tmp_path / "e.parquet")
    pl.DataFrame({"item_id": ["a", "b"], "name": ["A", "B"]}).write_parquet(tmp_path / "c.parquet")
    return tmp_path


def test_named_files_are_read_with_their_mappings(files):
    config = DataConfig(
        events=files / "e.parquet",
        catalogue=files / "c.parquet",
        event_columns={"user_id": "who"},
        catalogue_columns={"title": "name"},
    )
    events, catalogue, counts = load(config)
    assert events["user_id"].to_list() == ["u", "u"]
    assert catalogue.titles == ("A", "B")
    assert counts == []


def test_the_bundled_set_is_the_default():
    events, catalogue, counts = load(DataConfig())
    assert (events.height, len(catalogue), len(counts)) == (391_150, 3_659, 6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"events": Path("e.parquet")}, r"data\.catalogue \(--catalogue\) is missing"),
        ({"catalogue": Path("c.parquet")}, r"data\.events \(--data\) is missing"),
        ({"event_columns": {"user_id": "who"}}, r"need data\.events and data\.catalogue"),
    ],
)
def test_half_a_data_set_is_a_config_error(settings, message):
    with pytest.raises(ConfigError, match=message):
        load(DataConfig(**settings))


def test_an_unknown_item_names_the_events_file(files):
    pl.DataFrame({"item_id": ["a"], "title": ["A"]}).write_parquet(files / "c.parquet")
    config = DataConfig(events=files / "e.parquet", catalogue=files / "c.parquet", event_columns={"user_id": "who"})
    with pytest.raises(DataError, match=r"e\.parquet: row 2: item_id='b' is not in the catalogue"):
        load(config)
