"""A table of (person, query, item) as events of numbered people, without what cannot be used."""

import re

import polars as pl
import pytest

from fedrec.data.query_events import query_events, read_query_events
from fedrec.errors import ConfigError, DataError
from tests.clients.serving.tiny_shop import ITEM, shop

ROWS = [
    ("zoe", "mug", "m1"),
    ("ann", "lamp", "l1"),
    ("zoe", " mug ", "m1"),  # the same again
    ("zoe", "mug", "m2"),
    ("ann", "", "l2"),
    ("bob", "lamp", "unknown"),
    ("ann", None, "l2"),
]


def frame(rows=ROWS, names=("user_id", "query", "item_id")):
    return pl.DataFrame(rows, list(names), orient="row")


def test_people_are_numbered_and_their_events_stay_in_order():
    events = query_events(frame(), shop())
    assert events.people.tolist() == [0, 1, 1]
    assert events.queries == ("lamp", "mug", "mug")
    assert events.items.tolist() == [ITEM["l1"], ITEM["m1"], ITEM["m2"]]
    assert (len(events), events.persons) == (3, 2)


def test_a_table_without_a_usable_row_gives_no_event():
    events = query_events(frame(ROWS[4:]), shop())
    assert (len(events), events.persons) == (0, 0)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_file_is_read_under_its_own_names(tmp_path, suffix):
    path, table = tmp_path / f"queries{suffix}", frame(names=("who", "query", "item_id"))
    table.write_parquet(path) if suffix == ".parquet" else table.write_csv(path)
    assert read_query_events(path, shop(), columns={"user_id": "who"}).queries == ("lamp", "mug", "mug")
    with pytest.raises(DataError, match=r"no column 'user_id' for the field 'user_id'; the file has 'who', 'query'"):
        read_query_events(path, shop(), columns={})
    with pytest.raises(ConfigError, match=r"no field 'person'; expected one of user_id, query, item_id"):
        read_query_events(path, shop(), columns={"person": "who"})


def test_a_file_that_says_nothing_is_refused(tmp_path):
    frame(ROWS[4:]).write_parquet(path := tmp_path / "queries.parquet")
    message = rf"{re.escape(str(path))}: no row has a query and an item of the catalogue"
    with pytest.raises(DataError, match=message):
        read_query_events(path, shop(), columns={})
