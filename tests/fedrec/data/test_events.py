from datetime import UTC, date, datetime, time

import polars as pl
import pytest

from fedrec.data.events import clean_events, other_columns, read_events
from fedrec.errors import DataError

GOOD = {"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [5, 6]}


def write(tmp_path, name="events.parquet", **columns):
    frame = pl.DataFrame({**GOOD, **columns}, strict=False)
    frame.write_csv(tmp_path / name) if name.endswith("csv") else frame.write_parquet(tmp_path / name)
    return tmp_path / name


def test_fields_are_typed_and_other_columns_kept(tmp_path):
    path = write(tmp_path, price=[1, 2], quantity=[3, None], Country=["FR", "DE"], rating=[4.0, 5.0])
    events = read_events(path, columns={})
    assert events.schema == {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Int64,
        "quantity": pl.Float64,
        "price": pl.Float64,
        "Country": pl.String,
        "rating": pl.Float64,
    }
    assert events["quantity"].to_list() == [3.0, None]


@pytest.mark.parametrize(
    "written",
    [
        ["1291161960", "0"],
        ["1291161960.9", "0.0"],
        ["2010-12-01 00:06:00", "1970-01-01 00:00:00"],
        ["2010-12-01T00:06:00.500", "1970-01-01"],
        ["2010-12-01 00:06", "1970-01-01T00:00"],
        ["2010-12-01T02:06:00+02:00", "1970-01-01T00:00:00Z"],
        [1291161960, 0],
        [1291161960.7, 0.0],
        [datetime(2010, 12, 1, 0, 6), datetime(1970, 1, 1)],
        [datetime(2010, 12, 1, 0, 6, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)],
    ],
)
def test_every_way_to_write_a_time_gives_the_same_seconds(tmp_path, written):
    events = read_events(write(tmp_path, timestamp=written), columns={})
    assert events["timestamp"].to_list() == [1291161960, 0]


def test_a_date_is_its_midnight(tmp_path):
    events = read_events(write(tmp_path, timestamp=[date(1970, 1, 2), date(1970, 1, 1)]), columns={})
    assert events["timestamp"].to_list() == [86400, 0]


def test_whole_ids_stored_as_floats_lose_their_point(tmp_path):
    assert read_events(write(tmp_path, user_id=[17850.0, 12.0]), columns={})["user_id"].to_list() == ["17850", "12"]


def test_a_recbole_file_needs_no_mapping(tmp_path):
    path = tmp_path / "x.inter"
    path.write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n")
    events = read_events(path, columns={})
    assert events.to_dicts() == [{"user_id": "196", "item_id": "242", "timestamp": 881250949, "rating": "3"}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": ["u", None]}, r"row 2: user_id=None: expected a person's id"),
        ({"user_id": ["u", " "]}, r"row 2: user_id=' ': expected a person's id"),
        ({"item_id": ["", "b"]}, r"row 1: item_id='': expected an item's id"),
        ({"timestamp": [5, None]}, r"row 2: timestamp=None: expected seconds since 1970"),
        ({"timestamp": ["5", "yesterday"]}, r"row 2: timestamp='yesterday': expected seconds since 1970"),
        ({"timestamp": [5, -6]}, r"row 2: timestamp=-6: expected a time of 0 or later"),
        ({"timestamp": [5.0, float("nan")]}, r"row 2: timestamp=nan: expected seconds"),
        ({"price": [1.0, float("nan")]}, r"row 2: price=nan: expected a finite price >= 0"),
        ({"price": [float("inf"), 1.0]}, r"row 1: price=inf: expected a finite price"),
        ({"price": [1.0, -1.0]}, r"row 2: price=-1.0: expected a finite price"),
        ({"price": ["1", "cheap"]}, r"row 2: price='cheap': expected a finite price"),
        ({"quantity": [1, 0]}, r"row 2: quantity=0: expected a quantity > 0"),
        ({"quantity": ["two", "1"]}, r"row 1: quantity='two': expected a quantity > 0"),
    ],
)
def test_a_bad_value_names_file_row_and_column(tmp_path, columns, message):
    with pytest.raises(DataError, match=r"events\.parquet: " + message):
        read_events(write(tmp_path, **columns), columns={})


def test_the_first_bad_row_wins_whatever_its_rule(tmp_path):
    with pytest.raises(DataError, match="row 1: price=-1"):
        read_events(write(tmp_path, user_id=["u", None], price=[-1.0, 1.0]), columns={})


def test_a_bad_value_names_the_columns_of_the_file_not_ours(tmp_path):
    path = write(tmp_path, name="e.csv", UnitPrice=["1", "NaN"])
    with pytest.raises(DataError, match=r"e\.csv: row 2: UnitPrice='NaN'.*`fedrec data prepare` drops"):
        read_events(path, columns={"price": "UnitPrice"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": [["u"], ["v"]]}, r"column 'user_id' has type List\(String\), which cannot be a user_id"),
        ({"price": [True, False]}, "column 'price' has type Boolean; price wants numbers"),
        ({"timestamp": [True, False]}, "column 'timestamp' has type Boolean"),
        ({"timestamp": [time(8), time(9)]}, "column 'timestamp' has type Time; timestamp wants numbers"),
        ({"price": [date(2020, 1, 1)] * 2}, "column 'price' has type Date; expected numbers"),
    ],
)
def test_a_column_of_the_wrong_type_is_named(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        read_events(write(tmp_path, **columns), columns={})


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "e.csv").write_text("user_id,item_id\nu,a\n")
    with pytest.raises(DataError, match=r"e\.csv: no column 'timestamp'"):
        read_events(tmp_path / "e.csv", columns={})


def test_cleaning_drops_exactly_what_reading_refuses_and_counts_it(tmp_path):
    path = tmp_path / "dirty.csv"
    path.write_text(
        "user_id,item_id,timestamp,quantity,price\n"
        "u,a,1,1,1\n"
        ",a,1,1,1\n"  # no person
        "u,,1,1,1\n"  # no item
        "u,a,soon,1,1\n"  # no time
        "u,a,-1,1,1\n"  # before 1970
        "u,a,1,-2,1\n"  # returned
        "u,a,1,1,nan\n"  # no price
        "u,a,1,1,1\n"  # again
        "u,b,2,,\n"  # nothing said about quantity and price
    )
    events, counts = clean_events(path, columns={})
    assert events.select("item_id", "timestamp").rows() == [("a", 1), ("b", 2)]
    assert [(count.rule, count.dropped) for count in counts] == [
        ("missing_user", 1),
        ("missing_item", 1),
        ("missing_timestamp", 1),
        ("negative_timestamp", 1),
        ("bad_quantity", 1),
        ("bad_price", 1),
        ("exact_duplicate", 1),
    ]
    assert [count.kept for count in counts] == [8, 7, 6, 5, 4, 3, 2]
    events.write_parquet(tmp_path / "clean.parquet")
    assert read_events(tmp_path / "clean.parquet", columns={}).equals(events)


def test_cleaning_that_leaves_nothing_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no row is left after cleaning; negative_timestamp dropped 2"):
        clean_events(write(tmp_path, timestamp=[-1, -2]), columns={})


def test_only_words_and_whole_numbers_describe_people():
    frame = pl.DataFrame({**GOOD, "price": [1.0, 2.0], "shop": [3, 4], "rating": [1.0, 2.0], "is_new": [True, False]})
    assert other_columns(frame) == ["shop", "is_new"]
