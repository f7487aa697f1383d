"""What is read from the store for training is what a file gives, without those who said no or are forgotten."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients.people import read_people
from clients.serving.importing import import_events
from clients.serving.reading import read_histories, read_history
from clients.serving.store import EventStore
from clients.settings import ClientSettings
from fedrec.data.histories import Histories
from fedrec.errors import DataError
from tests.clients.serving.shops import new_store, view
from tests.tiny_invitation import MAX_HISTORY, MIN_EVENTS, Operator, catalogue
from tests.tiny_ranker import ITEMS

ITEM = catalogue().item_ids


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    with new_store(tmp_path) as opened:
        yield opened


def equal(one: Histories, other: Histories) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("offsets", "items", "timestamps"))


def training(store: EventStore, **changes) -> tuple[Histories, tuple[str, ...]]:
    cut = {"min_events": MIN_EVENTS, "merge_repeats": False, "max_history": MAX_HISTORY}
    return read_histories(store, catalogue(), **(cut | changes))


def busy_shop(path: Path, *, people: int = 40, rows: int = 900) -> Path:
    """Events in no order of person or time, with equal times, repeats, copies and items outside the catalogue."""
    rng = random.Random(3)
    lines = []
    for _ in range(rows):
        who, what = f"{rng.choice('aäZz')}{rng.randrange(people)}", rng.choice((*ITEM, "unknown"))
        lines.append(f"{who},{what},{rng.randrange(60)},{rng.randint(1, 3)}")
    path.write_text("\n".join(["user_id,item_id,timestamp,quantity", *lines, *lines[:50], ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize("merge_repeats", [False, True])
def test_training_reads_from_the_store_exactly_what_a_client_reads_from_its_file(
    store: EventStore, tmp_path: Path, merge_repeats: bool
) -> None:
    invitation = Operator(tmp_path / "operator").invitation
    path = busy_shop(tmp_path / "events.csv")
    settings = ClientSettings(name="shop", dataset="d1" * 32, events=path)
    from_file, rules = read_people(invitation, settings, merge_repeats=merge_repeats, items=ITEMS)
    import_events(store, path, columns={}, kind="purchase")
    from_store, people = training(store, merge_repeats=merge_repeats)
    assert equal(from_store, from_file)
    assert len(people) == len(from_file) > 40
    dropped = {rule.rule: rule.dropped for rule in rules if rule.dropped}
    assert set(dropped) == {"exact_duplicate", "unknown_item"}, "else the two ways were not put to the test"


def test_a_store_that_grew_event_by_event_gives_the_same(store: EventStore, tmp_path: Path) -> None:
    import_events(store, busy_shop(tmp_path / "events.csv"), columns={}, kind="purchase")
    rows = [row for chunk in store.training_rows(chunk=100) for row in chunk]
    (tmp_path / "live").mkdir()
    with new_store(tmp_path / "live") as live:
        for start in range(0, len(rows), 70):
            live.append([view(*row) for row in rows[start : start + 70]])
        assert equal(training(live)[0], training(store)[0])
        assert training(live)[1] == training(store)[1]


def test_without_those_who_want_no_training_it_is_as_if_they_had_never_come(store: EventStore, tmp_path: Path) -> None:
    import_events(store, busy_shop(tmp_path / "events.csv"), columns={}, kind="purchase")
    everybody, people = training(store)
    noes = people[3::7]
    for person in noes:
        store.set_choice(person, training=False)
    rest, others = training(store)
    staying = np.array([row for row, person in enumerate(people) if person not in noes])
    assert others == tuple(people[row] for row in staying)
    assert equal(rest, everybody.subset(staying))
    for person in noes:
        store.set_choice(person, training=True)
    assert equal(training(store)[0], everybody)


def test_without_the_forgotten_it_is_as_if_they_had_never_come(store: EventStore, tmp_path: Path) -> None:
    import_events(store, busy_shop(tmp_path / "events.csv"), columns={}, kind="purchase")
    everybody, people = training(store)
    gone = people[::9]
    for person in gone:
        store.forget(person)
    import_events(store, tmp_path / "events.csv", columns={}, kind="purchase")
    rest, others = training(store)
    staying = np.array([row for row, person in enumerate(people) if person not in gone])
    assert others == tuple(people[row] for row in staying)
    assert equal(rest, everybody.subset(staying))


def test_no_ranking_of_their_own_does_not_leave_anybody_out_of_training(store: EventStore) -> None:
    store.append([view("u", ITEM[n], n) for n in range(4)])
    store.set_choice("u", personalized=False)
    assert training(store)[1] == ("u",)


def test_some_kinds_alone_may_be_trained_on(store: EventStore) -> None:
    store.append([view("u", ITEM[n], n, kind="view" if n % 2 else "cart") for n in range(8)])
    histories, _ = training(store, kinds=["cart"])
    assert histories.of(0).tolist() == [0, 2, 4, 6]


def test_nobody_to_train_on_is_said(store: EventStore) -> None:
    with pytest.raises(DataError, match="the event store: no event that may be used for training has an item of the"):
        training(store)
    store.append([view("u", "unknown", n) for n in range(9)])
    with pytest.raises(DataError, match="no event that may be used for training"):
        training(store)
    store.append([view("u", ITEM[0], 1)])
    with pytest.raises(DataError, match="no person has 3 events or more"):
        training(store)


def test_serving_reads_a_persons_latest_in_positions_of_the_catalogue(store: EventStore) -> None:
    names = [ITEM[3], "unknown", ITEM[5], ITEM[3]]
    store.append([view("u", name, at) for at, name in enumerate(names)])
    items, times = read_history(store, "u", catalogue(), latest=3)
    assert (items.tolist(), times.tolist()) == ([5, 3], [2, 3])
    assert (items.dtype, times.dtype) == (np.int32, np.int64)
    assert len(read_history(store, "nobody", catalogue(), latest=3)[0]) == 0


def test_who_wants_no_ranking_of_their_own_or_is_forgotten_has_no_history_to_rank_by(store: EventStore) -> None:
    store.append([view(who, ITEM[1], 1) for who in "uvw"])
    store.set_choice("u", personalized=False)
    store.forget("v")
    lengths = [len(read_history(store, who, catalogue(), latest=9)[0]) for who in "uvw"]
    assert lengths == [0, 0, 1]
