"""A store or a key that is missing, damaged, foreign or read-only is one line that names it and the mend."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from clients.serving import store_file
from clients.serving.store import EventStore
from clients.serving.store_file import files_of
from fedrec.errors import FedrecError, RunError
from tests.clients.serving.shops import new_store, view

RESTORE = "restore a backup with its key, or import the events into a new store$"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with some pages of events, closed."""
    with new_store(tmp_path) as store:
        store.append([view(f"person-{n:03d}", f"item-{n}", n, query="q" * 100) for n in range(500)])
    return tmp_path / "shop.sqlite"


def test_its_files_are_for_its_owner_alone(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        store.append([view("u", "a")])
        files = [*files_of(tmp_path / "shop.sqlite"), tmp_path / "shop.key"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert set(tmp_path.iterdir()) == set(files)


def test_it_waits_for_the_disk_at_every_commit_and_overwrites_what_it_deletes(tmp_path: Path) -> None:
    with new_store(tmp_path) as store, store._file.connection() as connection:
        settings = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete")
        ]
    assert settings == ["wal", 2, 1]


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 7)


def overwritten(path: Path) -> None:
    path.write_bytes(b"these are not the bytes of a database " * 400)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def another_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE events (mine)")
    connection.close()


def another_column(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE people ADD COLUMN address TEXT")
    connection.close()


def no_store(path: Path) -> None:
    path.unlink()


def no_key(path: Path) -> None:
    path.with_suffix(".key").unlink()


def short_key(path: Path) -> None:
    path.with_suffix(".key").write_text("5ec2e7\n")


def other_file(path: Path) -> None:
    """Of events, say: it never had a key."""
    path.write_text("user_id,item_id,timestamp\n")
    no_key(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    no_key(path)


def other_key(path: Path) -> None:
    path.with_suffix(".key").write_text("5e" * 32 + "\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, rf"shop\.sqlite: unusable event store: database disk image is malformed; {RESTORE}"),
        (overwritten, rf"shop\.sqlite: not an event store, or its beginning is lost; {RESTORE}"),
        (emptied, rf"shop\.sqlite: not an event store, or its beginning is lost; {RESTORE}"),
        (other_file, rf"shop\.sqlite: not an event store, or its beginning is lost; {RESTORE}"),
        (folder, r"shop\.sqlite: cannot be read as an event store: Is a directory; name a store's file$"),
        (another_database, rf"shop\.sqlite: not an event store of this version, or a part of one; {RESTORE}"),
        (another_column, rf"shop\.sqlite: not an event store of this version, or a part of one; {RESTORE}"),
        (no_store, r"shop\.sqlite: no event store here; make one with `fedrec store import`$"),
        (
            no_key,
            r"shop\.key: the store's key cannot be read: No such file .*; restore it: without it the store cannot",
        ),
        (short_key, r"shop\.key: not a store's key: expected 64 hex digits; restore it: without it the store cannot"),
        (other_key, r"shop\.key: is not this store's key; restore it, no other key fits$"),
    ],
)
def test_what_is_spoiled_is_one_line_that_names_it_and_the_mend(spoil, message: str, path: Path) -> None:
    spoil(path)
    with pytest.raises(RunError, match=message) as refused, EventStore.open(path) as store:
        store.people()
    assert "5ec2e7" not in str(refused.value)


def test_a_page_of_zeros_anywhere_is_found(path: Path) -> None:
    with EventStore.open(path) as store:
        right = {person: store.history(person) for person in store.people()}
    size, whole, said = 4096, path.read_bytes(), []
    for page in range(2, len(whole) // size):
        path.write_bytes(whole[: page * size] + bytes(size) + whole[(page + 1) * size :])
        try:
            with EventStore.open(path) as store:
                said.append(store.damage())
        except FedrecError as error:
            said.append(str(error))
    assert None not in said
    assert not [line for line in said if "person-" in line or "item-" in line]
    path.write_bytes(whole)
    with EventStore.open(path) as store:
        assert store.damage() is None
        assert {person: store.history(person) for person in store.people()} == right


def test_a_store_is_never_made_over_another(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"shop\.sqlite: exists; open it, or choose another place$"):
        EventStore.create(path)
    path.unlink()
    with pytest.raises(RunError, match=r"shop\.key: is the key of a store that is not here; restore it, or choose"):
        EventStore.create(path)
    path.write_bytes(before)
    with EventStore.open(path) as store:
        assert store.count().people == 500


def test_nothing_is_left_where_a_store_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(store_file._SCHEMA, "broken", "CREATE NONSENSE")
    with pytest.raises(RunError, match=r"shop\.sqlite: unusable event store: near \"NONSENSE\""):
        new_store(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match=r"nowhere/shop\.key: the store's key cannot be written: No such file"):
        EventStore.create(tmp_path / "nowhere" / "shop.sqlite")


def test_a_writer_that_is_held_up_too_long_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_file, "_BUSY_TIMEOUT_S", 0.02)
    with EventStore.open(path) as store, EventStore.open(path) as other, other._file.transaction():
        with pytest.raises(RunError, match=r"shop\.sqlite: .*database is locked; another process has held it"):
            store.append([view("u", "a")])
        assert store.history("person-007") == (["item-7"], [7])
    with EventStore.open(path) as store:
        assert store.append([view("u", "a")]).added == 1
