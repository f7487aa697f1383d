"""What was appended is what is read, in order, once; and people's choices are kept."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients.serving.events import MAX_EVENTS, Event
from clients.serving.store import Appended, Choice, EventStore
from fedrec.errors import DataError
from tests.clients.serving.shops import new_store, view


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    with new_store(tmp_path) as opened:
        yield opened


def test_a_history_is_oldest_first_and_equal_times_keep_the_order_they_came_in(store: EventStore) -> None:
    store.append([view("u", "late", 9), view("v", "other", 1), view("u", "first", 5)])
    store.append([view("u", "second", 5), view("u", "early", 0)])
    assert store.history("u") == (["early", "first", "second", "late"], [0, 5, 5, 9])
    assert store.history("u", latest=2) == (["second", "late"], [5, 9])
    assert store.history("nobody") == ([], [])


def test_a_history_may_be_of_some_kinds_alone(store: EventStore) -> None:
    store.append([view("u", "a", 1), view("u", "b", 2, kind="cart"), view("u", "c", 3, kind="purchase")])
    assert store.history("u", kinds=["purchase", "cart"])[0] == ["b", "c"]
    assert store.history("u", kinds={"view"}, latest=1)[0] == ["a"]
    assert store.history("u", kinds=[]) == ([], [])


def test_another_connection_reads_what_was_appended(store: EventStore, tmp_path: Path) -> None:
    store.append([view("u", "a", 1)])
    with EventStore.open(tmp_path / "shop.sqlite") as other:
        assert other.history("u") == (["a"], [1])
        store.append([view("u", "b", 2)])
        assert other.history("u") == (["a", "b"], [1, 2])


def test_an_event_sent_twice_counts_once(store: EventStore) -> None:
    first = view("u", "a", 1, event_id="e1")
    assert store.append([first, first, view("u", "a", 1)]) == Appended(added=2, repeated=1, forgotten=0)
    assert store.append([first, view("u", "b", 2, event_id="e2")]) == Appended(added=1, repeated=1, forgotten=0)
    assert store.history("u")[0] == ["a", "a", "b"]


@pytest.mark.parametrize(
    "other",
    [
        view("v", "a", 1, event_id="e1"),
        view("u", "b", 1, event_id="e1"),
        view("u", "a", 2, event_id="e1"),
        view("u", "a", 1, event_id="e1", kind="cart"),
        view("u", "a", 1, event_id="e1", query="q"),
    ],
)
def test_an_id_that_is_given_to_two_events_is_refused_and_neither_is_lost(store: EventStore, other) -> None:
    store.append([view("u", "a", 1, event_id="e1")])
    with pytest.raises(DataError, match=r"^event 1: event_id: was given to another event before; use each id once$"):
        store.append([view("w", "z", 3), other])
    assert (store.people(), store.history("u")) == (["u"], (["a"], [1]))


def test_one_bad_event_and_none_is_taken(store: EventStore) -> None:
    with pytest.raises(DataError, match=r"^event 2: item_id: expected text that is not blank$"):
        store.append([view("u", "a"), view("v", "b"), view("w", ""), view("x", "c")])
    assert store.count().events == store.count().people == 0


def test_no_more_events_at_once_than_the_bound(store: EventStore) -> None:
    events = [view("u", "a", at) for at in range(MAX_EVENTS + 1)]
    with pytest.raises(DataError, match=r"^1001 events; expected at most 1000 at once$"):
        store.append(events)
    assert store.append(events[1:]).added == MAX_EVENTS
    assert store.append([]) == Appended(0, 0, 0)


def test_items_outside_the_catalogue_are_kept_unless_it_is_named(store: EventStore) -> None:
    assert store.append([view("u", "unknown", 1)]).added == 1
    with pytest.raises(DataError, match=r"^event 1: item_id: is not in the catalogue$"):
        store.append([view("u", "a", 2), view("u", "b", 3)], known_items={"a"})
    assert store.history("u")[0] == ["unknown"]


def test_people_are_sorted_and_counted(store: EventStore) -> None:
    store.append([view("ä", "a"), view("z", "a"), view("Z", "a"), view("z", "b")])
    store.set_choice("z", training=False)
    store.set_choice("only a choice", personalized=False, training=False)
    assert store.people() == sorted(["ä", "z", "Z", "only a choice"])
    count = store.count()
    assert (count.people, count.events, count.not_personalized, count.not_training) == (4, 4, 1, 2)
    assert (count.forgotten, count.unfinished) == (0, 0)


def test_permissions_differ_after_whatever_somebody_allows_or_no_longer_does(store: EventStore) -> None:
    store.append([Event(user, "i01", 1, "view") for user in ("ann", "bob", "cal")])
    seen = [store.permissions()]
    for change in (
        lambda: store.forget("ann"),
        lambda: store.readmit("ann"),
        lambda: store.set_choice("bob", training=False),
        lambda: (store.set_choice("bob", training=True), store.set_choice("cal", training=False)),
    ):
        change()
        seen.append(store.permissions())
    assert len(set(seen)) == len(seen)
    store.append([Event("bob", "i02", 2, "view")])
    assert store.permissions() == seen[-1]


def test_everything_is_allowed_until_somebody_says_otherwise(store: EventStore, tmp_path: Path) -> None:
    assert store.choice("u") == Choice(personalized=True, training=True)
    store.set_choice("u", personalized=False)
    store.append([view("u", "a")])
    assert store.choice("u") == Choice(personalized=False, training=True)
    assert store.set_choice("u", training=False) == Choice(personalized=False, training=False)
    assert store.set_choice("u", personalized=True) == Choice(personalized=True, training=False)
    with EventStore.open(tmp_path / "shop.sqlite") as other:
        assert other.choice("u") == Choice(personalized=True, training=False)
    assert store.choice("v") == Choice(personalized=True, training=True)


@pytest.mark.parametrize("ask", ["history", "choice", "set_choice", "forget", "readmit"])
def test_what_is_no_id_is_nobodys(store: EventStore, ask: str) -> None:
    with pytest.raises(DataError, match=r"^user_id: holds control characters or broken Unicode$"):
        getattr(store, ask)("secret\ud800")


def test_readers_see_whole_appends_in_order_while_a_writer_writes(store: EventStore) -> None:
    """Each append holds two events; a reader never sees one of them, and never fewer than before."""
    appends, done = 60, []

    def write() -> None:
        for at in range(appends):
            store.append([view("u", f"i{2 * at}", at), view("u", f"i{2 * at + 1}", at)])
        done.append(True)

    def read() -> int:
        seen, looks = 0, 0
        while seen < 2 * appends and looks < 100_000:
            finished = bool(done)
            items, _ = store.history("u")
            assert items == [f"i{index}" for index in range(len(items))]
            assert len(items) % 2 == 0
            assert len(items) >= seen
            assert not finished or len(items) == 2 * appends
            seen, looks = len(items), looks + 1
        return seen

    with ThreadPoolExecutor(5) as pool:
        reads = [pool.submit(read) for _ in range(4)]
        pool.submit(write).result()
        assert [task.result() for task in reads] == [2 * appends] * 4


def test_writers_take_turns_and_none_loses_an_event(store: EventStore) -> None:
    def write(writer: int) -> int:
        return sum(store.append([view(f"u{writer}", f"i{at}", at)]).added for at in range(25))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(4))) == [25] * 4
    assert all(store.history(f"u{writer}")[1] == list(range(25)) for writer in range(4))
