"""Processes that die while they write, and disks that are full."""

import signal
from pathlib import Path

import pytest

from clients.serving.store import EventStore
from tests.clients.serving.shops import bytes_of, new_store, process, view
from tests.killing import killed_at_random

KILLS = 20

# A fresh process for each line read, without importing everything anew.
MORTAL = """
for run in map(str.strip, sys.stdin):
    child = os.fork()
    if child == 0:
        store, index = EventStore.open(path), 0
        while True:
            pair = [Event("u", f"{run}/{index}", index, "view"), Event(f"u{run}", f"{run}/{index}", index, "view")]
            store.append(pair)
            os.write(1, f"{run}/{index}\\n".encode())  # whole or not at all, whenever it is killed
            index += 1
    print("pid", child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""

IMPORTER = """
from clients.serving.importing import import_events
store, taken = EventStore.open(path), []
append_all = store.append_all
def dying(events, **more):
    def some():
        for number, event in enumerate(events):
            if number == said["after"]:
                os.kill(os.getpid(), signal.SIGKILL)
            yield event
    return append_all(some(), **more)
store.append_all = dying
import_events(store, Path(said["events"]), columns={}, kind="view")
"""

FORGETFUL = """
store = EventStore.open(path)
forgetting.erase = lambda file: os.kill(os.getpid(), signal.SIGKILL)  # the rows are deleted, the bytes are there
store.forget("u007")
"""

SHORT_OF_DISK = """
store = EventStore.open(path)
largest = max(file.stat().st_size for file in path.parent.iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (largest + said, resource.RLIM_INFINITY))
try:
    for index in range(10_000):
        store.append([Event("u", f"full/{index}", index, "view", "q" * 500)])
        print(index, flush=True)
except RunError as refusal:
    print(refusal)
"""

FORGETTING_SHORT_OF_DISK = """
store = EventStore.open(path)
largest = max(file.stat().st_size for file in path.parent.iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (largest + said, resource.RLIM_INFINITY))
try:
    store.forget("u007")
except RunError as refusal:
    print(refusal)
"""


def test_no_acknowledged_event_is_lost_when_a_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    new_store(tmp_path).close()
    acknowledged: set[str] = set()
    with process(MORTAL, path) as mortal:
        for run in range(KILLS):
            acknowledged |= killed_at_random(mortal, run)
            with EventStore.open(path) as store:
                kept = store.history("u")[0]
                assert set(kept) >= acknowledged
                assert len(kept) == len(set(kept)) <= len(acknowledged) + run + 1  # one a kill may be kept unsaid
                assert store.history(f"u{run}")[0] == [item for item in kept if item.startswith(f"{run}/")]
                assert store.damage() is None
    assert len(acknowledged) > KILLS


@pytest.mark.parametrize("after", [1, 2_000, 19_999])
def test_an_import_that_is_killed_leaves_nothing_of_the_file(tmp_path: Path, after: int) -> None:
    events = tmp_path / "events.csv"
    rows = "".join(f"u{n % 50:03d},i{n},{n}\n" for n in range(20_000))
    events.write_text("user_id,item_id,timestamp\n" + rows)
    with new_store(tmp_path) as store:
        store.append([view("before", "a")])
        with process(IMPORTER, tmp_path / "shop.sqlite", said={"events": str(events), "after": after}) as importer:
            assert importer.wait(60) == -signal.SIGKILL
        assert (store.people(), store.count().events, store.damage()) == (["before"], 1, None)


def test_a_forgetting_that_is_killed_is_finished_when_the_store_is_next_opened(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    with new_store(tmp_path) as store:
        store.append([view(f"u{n % 10:03d}", f"mark-{n % 10:03d}-{n}", n) for n in range(200)])
        with process(FORGETFUL, path) as forgetful:
            assert forgetful.wait(60) == -signal.SIGKILL
        assert store.count().unfinished == 1
        assert "u007" not in store.people()
        assert b"mark-007" in bytes_of(path), "else there was nothing to finish"
    with EventStore.open(path) as store:
        assert (store.count().unfinished, store.count().forgotten, store.count().events) == (0, 1, 180)
        assert b"mark-007" not in bytes_of(path)


@pytest.mark.parametrize("room", [0, 100, 5_000, 40_000])
def test_on_a_full_disk_events_are_refused_and_none_is_lost(tmp_path: Path, room: int) -> None:
    path = tmp_path / "shop.sqlite"
    with new_store(tmp_path) as store:
        store.append([view("u", f"before/{index}", index) for index in range(300)])
        with process(SHORT_OF_DISK, path, said=room) as short:
            output, _ = short.communicate(timeout=60)
    *acknowledged, refusal = output.splitlines()
    assert "shop.sqlite: unusable event store: " in refusal
    assert refusal.endswith("; make room and try again")
    with EventStore.open(path) as store:
        kept = set(store.history("u")[0])
        assert kept >= {f"before/{index}" for index in range(300)} | {f"full/{index}" for index in acknowledged}
        assert len(kept) <= 300 + len(acknowledged) + 1
        assert store.append([view("u", "after")]).added == 1
        assert store.damage() is None


@pytest.mark.parametrize(("room", "outcome"), [(0, "there"), (300_000, "deleted"), (900_000, "forgotten")])
def test_on_a_full_disk_a_person_is_there_or_forgotten_and_nobody_else_is_lost(
    tmp_path: Path, room: int, outcome: str
) -> None:
    path = tmp_path / "shop.sqlite"
    with new_store(tmp_path) as store:
        store.append([view(f"u{n % 10:03d}", f"mark-{n % 10:03d}-{n}", n, query="q" * 100) for n in range(1_000)])
        with process(FORGETTING_SHORT_OF_DISK, path, said=room) as short:
            refusal, _ = short.communicate(timeout=60)
        others = [f"u{n:03d}" for n in range(10) if n != 7]
        assert (store.people() == others) == (outcome != "there")
        assert (store.count().unfinished == 1) == (outcome == "deleted")
        assert refusal.endswith("; make room and try again\n") == (outcome != "forgotten")
    with EventStore.open(path) as store:
        assert all(len(store.history(person)[0]) == 100 for person in others)
        assert len(store.history("u007")[0]) == (100 if outcome == "there" else 0)
        assert (b"mark-007" in bytes_of(path)) == (outcome == "there"), "opening finishes what had no room"
        assert store.count().unfinished == 0
