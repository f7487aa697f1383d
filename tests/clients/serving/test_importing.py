"""A file is taken in whole or not at all, and each of its events once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.serving.importing import import_events
from clients.serving.store import Appended, EventStore
from fedrec.errors import ConfigError, DataError
from tests.clients.serving.shops import new_store, view

HEAD = "user_id,item_id,timestamp,event,query,price\n"
ROWS = "u,a,1,view,red mug,2.5\nv,b,2,,,\nu,c,1,cart,,2\n"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    with new_store(tmp_path) as opened:
        yield opened


def taken(store: EventStore, folder: Path, text: str, **more) -> Appended:
    path = folder / "events.csv"
    path.write_text(text, encoding="utf-8")
    return import_events(store, path, **({"columns": {}, "kind": "purchase"} | more))


def test_a_files_events_are_the_stores_in_file_order(store: EventStore, tmp_path: Path) -> None:
    assert taken(store, tmp_path, HEAD + ROWS) == Appended(added=3, repeated=0, forgotten=0)
    assert store.history("u") == (["a", "c"], [1, 1])
    assert store.history("u", kinds=["cart"])[0] == ["c"]
    assert store.history("v", kinds=["purchase"])[0] == ["b"], "an event without a kind has the one that was named"
    with store._file.connection() as connection:
        assert connection.execute("SELECT query FROM events").fetchall() == [("red mug",), (None,), (None,)]


def test_columns_are_mapped_and_never_guessed(store: EventStore, tmp_path: Path) -> None:
    columns = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    assert taken(store, tmp_path, "who,what,when\n007,a,2011-12-09 12:50:00\n", columns=columns).added == 1
    assert store.history("007") == (["a"], [1323435000])
    with pytest.raises(DataError, match=r"events\.csv: no column 'user_id' for the field 'user_id'"):
        taken(store, tmp_path, "who,what,when\n1,a,1\n")
    with pytest.raises(ConfigError, match="no field 'person'"):
        taken(store, tmp_path, HEAD + ROWS, columns={"person": "who"})


def test_a_file_that_is_read_again_or_has_grown_adds_what_is_new(store: EventStore, tmp_path: Path) -> None:
    taken(store, tmp_path, HEAD + ROWS)
    assert taken(store, tmp_path, HEAD + ROWS, kind="view") == Appended(added=0, repeated=3, forgotten=0)
    assert taken(store, tmp_path, HEAD + ROWS + "w,a,9,,,\n") == Appended(added=1, repeated=3, forgotten=0)
    assert store.history("v", kinds=["purchase"])[0] == ["b"]


def test_rows_equal_in_every_column_count_once_and_other_repeats_are_events(store: EventStore, tmp_path: Path) -> None:
    rows = "u,a,1,,,1\nu,a,1,,,1\nu,a,1,,,2\n"
    assert taken(store, tmp_path, HEAD + rows).added == 2
    assert taken(store, tmp_path, HEAD + rows) == Appended(added=0, repeated=2, forgotten=0)


def test_an_event_that_was_sent_and_stands_in_a_file_counts_once_by_its_id(store: EventStore, tmp_path: Path) -> None:
    store.append([view("u", "a", 1, event_id="e1")])
    text = "user_id,item_id,timestamp,event,event_id\nu,a,1,view,e1\nu,b,2,view,e2\nu,c,3,view,\n"
    assert taken(store, tmp_path, text) == Appended(added=2, repeated=1, forgotten=0)
    with pytest.raises(DataError, match=r"events\.csv: row 2: event_id: was given to another event before"):
        taken(store, tmp_path, "user_id,item_id,timestamp,event,event_id\nw,a,1,,e9\nu,z,2,view,e2\n")
    assert store.people() == ["u"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",a,1,,,\n", r"events\.csv: row 4: user_id=None: expected a person's id; `fedrec data prepare` drops"),
        ("u,a,soon,,,\n", r"events\.csv: row 4: timestamp='soon': expected seconds since 1970"),
        ("u,a,-1,,,\n", r"events\.csv: row 4: timestamp='-1': expected a time of 0 or later"),
        ("secret\x07,a,1,,,\n", r"events\.csv: row 4: user_id: holds control characters or broken Unicode$"),
        ("secret" * 50 + ",a,1,,,\n", r"events\.csv: row 4: user_id: 300 bytes; expected at most 256$"),
        ("u,a,1893456000000,,,\n", r"events\.csv: row 4: timestamp: more than a day ahead of .* not milliseconds$"),
        ("u,z,1,,,\n", r"events\.csv: row 4: item_id: is not in the catalogue$"),
    ],
)
def test_one_bad_row_and_nothing_is_taken(store: EventStore, tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        taken(store, tmp_path, HEAD + ROWS + row, known_items={"a", "b", "c"})
    assert "secret" not in str(refused.value)
    assert store.count().events == store.count().people == 0


def test_the_row_that_is_named_is_the_files_also_after_repeats(store: EventStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"events\.csv: row 4: item_id: is not in the catalogue$"):
        taken(store, tmp_path, HEAD + "u,a,1,,,\nu,a,1,,,\nu,a,1,,,\nu,z,1,,,\n", known_items={"a"})
