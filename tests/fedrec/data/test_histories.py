import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.data.catalogue import Catalogue
from fedrec.data.histories import Histories, build_histories
from fedrec.errors import DataError

CATALOGUE = Catalogue(("a", "b", "c"), ("A", "B", "C"), pl.DataFrame())


def events(*rows, **columns):
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def build(frame, *, min_events=1, merge_repeats=False, max_history=None):
    return build_histories(
        frame, CATALOGUE, min_events=min_events, merge_repeats=merge_repeats, max_history=max_history
    )


def as_lists(histories):
    return [histories.of(person).tolist() for person in range(len(histories))]


def test_events_are_sorted_by_person_and_time_and_ties_keep_file_order():
    frame = events(("v", "a", 2), ("u", "c", 9), ("v", "c", 1), ("u", "b", 3), ("v", "b", 2))
    histories, people = build(frame)
    assert people["user_id"].to_list() == ["u", "v"]
    assert as_lists(histories) == [[1, 2], [2, 0, 1]]
    assert histories.times(1).tolist() == [1, 2, 2]
    assert histories.lengths.tolist() == [2, 3]
    assert (histories.offsets.dtype, histories.items.dtype, histories.timestamps.dtype) == (
        np.int64,
        np.int32,
        np.int64,
    )


def test_merging_drops_only_a_repeat_of_the_event_just_before():
    frame = events(("u", "a", 1), ("u", "a", 2), ("u", "b", 3), ("u", "a", 4), ("v", "a", 5))
    assert as_lists(build(frame, merge_repeats=True)[0]) == [[0, 1, 0], [0]]
    assert as_lists(build(frame)[0]) == [[0, 0, 1, 0], [0]]


def test_people_with_few_events_after_merging_are_left_out():
    frame = events(("u", "a", 1), ("u", "a", 2), ("u", "a", 3), ("v", "a", 1), ("v", "b", 2))
    histories, people = build(frame, merge_repeats=True, min_events=2)
    assert people["user_id"].to_list() == ["v"]
    assert as_lists(histories) == [[0, 1]]


def test_only_the_latest_events_are_kept():
    frame = events(("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("v", "a", 1))
    assert as_lists(build(frame, max_history=2)[0]) == [[1, 2], [0]]


def test_nobody_left_is_an_error():
    with pytest.raises(DataError, match=r"no person has 3 events or more; lower data\.min_events"):
        build(events(("u", "a", 1)), min_events=3)


def test_an_unknown_item_is_an_error():
    with pytest.raises(DataError, match="events: row 2: item_id='x' is not in the catalogue"):
        build(events(("u", "a", 1), ("u", "x", 2)))


def test_people_are_described_by_their_most_frequent_values():
    frame = events(
        ("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("v", "a", 1), ("v", "a", 2), ("w", "a", 1),
        Country=["FR", "DE", "FR", "SE", "IT", None], shop=[7, 8, 8, 9, 9, 1], price=[1.0] * 6, query=["q"] * 6,
    )  # fmt: skip
    _, people = build(frame)
    assert people.columns == ["user_id", "Country", "shop"]
    assert people.rows() == [("u", "FR", 8), ("v", "IT", 9), ("w", None, 1)]


def test_a_subset_has_these_people_in_the_order_asked():
    histories = Histories.from_lists([[0, 1], [], [2], [1, 1, 0]], times=[[5, 6], [], [7], [1, 2, 3]])
    subset = histories.subset(np.array([3, 1, 0]))
    assert as_lists(subset) == [[1, 1, 0], [], [0, 1]]
    assert subset.times(2).tolist() == [5, 6]
    assert len(histories.subset(np.array([], dtype=np.int64))) == 0


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6), st.integers(1, 6))
def test_the_latest_of_everyone_is_the_tail_of_each_list(rows, events_kept):
    histories = Histories.from_lists(rows)
    assert as_lists(histories) == rows
    assert as_lists(histories.latest(events_kept)) == [row[-events_kept:] for row in rows]


def test_histories_survive_a_round_trip(tmp_path):
    histories = Histories.from_lists([[0, 1], [], [2]])
    histories.save(tmp_path / "h.safetensors")
    again = Histories.load(tmp_path / "h.safetensors")
    assert as_lists(again) == [[0, 1], [], [2]]
    assert again.timestamps.tolist() == [0, 1, 0]
    assert again.items.dtype == np.int32


@pytest.mark.parametrize("damage", [lambda content: content[:-3], lambda content: b"", lambda content: b"garbage" * 9])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "h.safetensors"
    Histories.from_lists([[0, 1]]).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"h\.safetensors: cannot be read as histories"):
        Histories.load(path)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read as histories"):
        Histories.load(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
    ("offsets", "message"), [([0, 3], "do not fit"), ([1, 2], "do not fit"), ([0, 2, 1, 2], "offsets decrease")]
)
def test_arrays_that_do_not_fit_are_refused(offsets, message):
    with pytest.raises(DataError, match=message):
        Histories(np.array(offsets), np.zeros(2, np.int32), np.zeros(2, np.int64))


def test_without_repeats_drops_what_repeats_the_event_before_it_within_a_person():
    histories = Histories.from_lists([[1, 1, 2, 1, 1, 1], [], [1, 3, 3], [3]])
    merged = histories.without_repeats()
    assert [merged.of(person).tolist() for person in range(4)] == [[1, 2, 1], [], [1, 3], [3]]
    # Person 3 begins with the item that person 2 ends on: that is no repeat of theirs.


def test_without_repeats_keeps_trailing_people_without_events():
    merged = Histories.from_lists([[2, 2], []]).without_repeats()
    assert merged.lengths.tolist() == [1, 0]
