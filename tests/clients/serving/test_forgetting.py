"""Forgotten is gone: rows, bytes and all, for later files too; and the mark that is left tells nobody who."""

import hashlib
import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients.serving import forgetting, store_file
from clients.serving.importing import import_events
from clients.serving.store import Appended, Choice, EventStore
from fedrec.errors import DataError, RunError
from tests.clients.serving.shops import NOON, Clock, bytes_of, new_store, process, view


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[EventStore]:
    with new_store(tmp_path, clock) as opened:
        yield opened


def test_of_the_forgotten_no_byte_is_left_in_the_files(store: EventStore, tmp_path: Path) -> None:
    store.append(
        [
            view(f"<{who}>", f"item-<{who}>", at, event_id=f"{at}-<{who}>", query=f"query-<{who}>")
            for at in range(20)
            for who in ("u", "v", "w")
        ]
    )
    for who in ("u", "w"):
        assert f"<{who}>".encode() in bytes_of(tmp_path / "shop.sqlite"), "else the search finds nothing"
        store.forget(f"<{who}>")
        assert f"<{who}>".encode() not in bytes_of(tmp_path / "shop.sqlite")
    assert store.people() == ["<v>"]
    assert b"query-<v>" in bytes_of(tmp_path / "shop.sqlite")


@pytest.mark.parametrize("seed", [0, 3, 4, 6])
def test_nor_is_there_where_pages_were_split_and_joined(store: EventStore, tmp_path: Path, seed: int) -> None:
    """``secure_delete`` alone leaves copies of a few of these people, whom SQLite had moved from page to page."""
    rng = random.Random(seed)
    people = [f"<{rng.getrandbits(64):016x}>" for _ in range(800)]
    for _ in range(80):
        store.append(
            [
                view(who, f"item-{who}", rng.randrange(NOON), event_id=f"{rng.getrandbits(32):08x}-{who}", query=query)
                for who in rng.choices(people, k=40)
                for query in [f"query-{who}" * rng.choice([1, 1, 30]) if rng.random() < 0.3 else None]
            ]
        )
    gone = set(rng.sample(people, 750))
    with store._file.transaction() as connection:
        for who in sorted(gone):
            forgetting.forget(connection, who, store._marks.of(who), now=NOON)
    forgetting.erase(store._file)
    left = {name.decode() for name in re.findall(b"<[0-9a-f]{16}>", bytes_of(tmp_path / "shop.sqlite"))}
    assert left & gone == set()
    assert left == set(store.people()) > set()
    assert (store.count().forgotten, store.count().unfinished, store.damage()) == (750, 0, None)


def test_it_says_how_much_went_and_when_and_leaves_the_others_alone(store: EventStore) -> None:
    store.append([view("u", "a", 1), view("v", "a", 2), view("u", "b", 3)])
    store.set_choice("v", training=False)
    assert store.forget("u") == (2, NOON)
    assert (store.people(), store.history("v"), store.history("u")) == (["v"], (["a"], [2]), ([], []))
    assert store.choice("v") == Choice(personalized=True, training=False)
    assert (store.count().forgotten, store.count().unfinished) == (1, 0)
    assert store.forget("u") == (0, NOON)
    assert store.count().forgotten == 1


def test_their_events_are_dropped_from_then_on_and_everybody_elses_taken(store: EventStore, tmp_path: Path) -> None:
    store.append([view("u", "a", 1, event_id="e1")])
    store.forget("u")
    later = [view("u", "a", 1, event_id="e1"), view("v", "b", 2), view("u", "c", NOON + 5)]
    assert store.append(later) == Appended(added=1, repeated=0, forgotten=2)
    events = tmp_path / "events.csv"
    events.write_text("user_id,item_id,timestamp\nu,a,1\nw,a,2\nu,b,3\n")
    assert import_events(store, events, columns={}, kind="view") == Appended(added=1, repeated=0, forgotten=2)
    assert store.people() == ["v", "w"]


def test_somebody_may_be_forgotten_before_they_are_known(store: EventStore) -> None:
    assert store.forget("u").events == 0
    assert store.append([view("u", "a", 1)]).forgotten == 1


def test_the_forgotten_allow_nothing(store: EventStore) -> None:
    store.forget("u")
    assert store.choice("u") == Choice(personalized=False, training=False)
    with pytest.raises(DataError, match=r"^user_id: is of somebody who was forgotten, .*; readmit them first$"):
        store.set_choice("u", personalized=True)
    assert store.people() == []


def test_who_returns_begins_anew_and_what_was_forgotten_stays_so(store: EventStore, clock: Clock) -> None:
    store.append([view("u", "a", NOON - 10)])
    store.set_choice("u", training=False)
    store.forget("u")
    clock.now = NOON + 1_000.5
    assert store.readmit("u") is True
    assert store.readmit("u") is False
    assert store.choice("u") == Choice(personalized=True, training=True)
    times = (NOON - 10, NOON, NOON + 1_000, NOON + 1_001, NOON + 2_000)
    assert store.append([view("u", f"i{at}", at) for at in times]) == Appended(added=2, repeated=0, forgotten=3)
    assert store.history("u")[1] == [NOON + 1_001, NOON + 2_000]
    assert store.count().forgotten == 0
    store.forget("u")
    assert store.append([view("u", "again", NOON + 3_000)]).forgotten == 1


def test_a_clock_set_back_brings_nothing_back(store: EventStore, clock: Clock) -> None:
    store.append([view("u", "a", NOON)])
    store.forget("u")
    clock.now = 1_000
    store.readmit("u")
    assert store.append([view("u", "a", 1_000)]).forgotten == 1
    clock.now = NOON
    assert store.append([view("u", "a", NOON), view("u", "b", NOON + 1)]) == Appended(1, 0, 1)


def test_nobody_is_readmitted_who_was_not_forgotten(store: EventStore) -> None:
    store.append([view("u", "a", 1)])
    assert store.readmit("u") is False
    assert store.history("u") == (["a"], [1])


def test_the_mark_is_a_keyed_hash_and_differs_from_store_to_store(tmp_path: Path) -> None:
    marks = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with new_store(tmp_path / name) as store:
            store.forget("u")
            with store._file.connection() as connection:
                ((mark, at, readmitted, erased),) = connection.execute("SELECT * FROM forgotten").fetchall()
        assert (len(mark), at, readmitted, erased) == (32, NOON, None, 1)
        key = bytes.fromhex((tmp_path / name / "shop.key").read_text())
        assert mark == rfc2104(key, b"person:u")
        marks.append(mark)
    assert marks[0] != marks[1]
    assert hashlib.sha256(b"u").digest() not in marks


def rfc2104(key: bytes, text: bytes) -> bytes:
    """HMAC-SHA256 written out: H(K xor opad, H(K xor ipad, text))."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + text).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()


def test_a_reader_that_holds_the_old_log_is_waited_for_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_file, "_BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(forgetting, "_PATIENCE_S", 0.1)
    path = tmp_path / "shop.sqlite"
    with new_store(tmp_path) as store, EventStore.open(path) as reader:
        store.append([view(f"u{n % 5}", f"mark-u{n % 5}", n) for n in range(50)])
        rows = reader.training_rows(chunk=1)
        next(rows)
        with pytest.raises(RunError, match=r"deleted, but a reader holds the old log; forget once more to finish"):
            store.forget("u3")
        assert (store.people(), store.count().unfinished) == (["u0", "u1", "u2", "u4"], 1)
        assert len(list(rows)) == 49, "a reader sees one moment to its end"
        assert store.forget("u3").events == 0
        assert store.count().unfinished == 0
        assert b"mark-u3" not in bytes_of(path)


CHECKPOINTING = """
import fcntl
with open(f"{path}-shm", "r+b") as index:
    fcntl.lockf(index, fcntl.LOCK_EX, 1, 121)  # as a connection does that makes a checkpoint: sqlite.org/walformat.html
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_another_processes_checkpoint_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself would refuse ours at once."""
    path = tmp_path / "shop.sqlite"
    with new_store(tmp_path) as store, ThreadPoolExecutor(1) as pool:
        store.append([view(f"u{n % 5}", f"mark-u{n % 5}", n) for n in range(50)])
        with process(CHECKPOINTING, path) as other:
            assert other.stdout.readline() == "held\n"
            gone = pool.submit(store.forget, "u3")
            end = time.monotonic() + 4
            while not store.count().unfinished:
                assert time.monotonic() < end, "the person is still there"
            with pytest.raises(TimeoutError):
                gone.result(timeout=0.3)
        assert gone.result(timeout=10).events == 10
        assert store.count().unfinished == 0
        assert b"mark-u3" not in bytes_of(path)


def test_forgetting_that_cannot_be_finished_does_not_keep_the_shop_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: store_file.StoreFile) -> None:
        raise RunError("no room")

    with new_store(tmp_path) as store:
        store.append([view("u", "mark-u"), view("v", "a")])
        monkeypatch.setattr(forgetting, "erase", full)
        with pytest.raises(RunError, match="no room"):
            store.forget("u")
    with EventStore.open(tmp_path / "shop.sqlite") as store:
        assert (store.people(), store.count().unfinished) == (["v"], 1)
