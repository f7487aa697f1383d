"""The ledger's SQLite file: one append-only table, one writer at a time, on disk when a transaction ends."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from fedrec.errors import PrivacyError
from fedrec.privacy.durable import sync_folder
from fedrec.privacy.ledger_entries import Entry

_BUSY_TIMEOUT_S = 30.0
_SCHEMA = {
    "entries": """CREATE TABLE entries (
    sequence INTEGER PRIMARY KEY, at INTEGER NOT NULL, dataset TEXT NOT NULL, unit TEXT NOT NULL,
    kind TEXT NOT NULL, plan TEXT NOT NULL, policy TEXT NOT NULL, round_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('opened', 'reserved', 'released', 'settled')),
    noise_multiplier REAL NOT NULL, sampling_rate REAL NOT NULL, steps INTEGER NOT NULL CHECK (steps >= 0),
    batch_cap INTEGER, max_people INTEGER, clip_norm REAL NOT NULL, delta REAL, accountant TEXT NOT NULL,
    reason TEXT NOT NULL, previous TEXT NOT NULL UNIQUE, mac TEXT NOT NULL UNIQUE,
    UNIQUE (round_id, state))""",
    "no_delete": "CREATE TRIGGER no_delete BEFORE DELETE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "no_update": "CREATE TRIGGER no_update BEFORE UPDATE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
}
_COLUMNS = ", ".join(Entry._fields)
_INSERT = f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * len(Entry._fields))})"  # noqa: S608 - constants


def create_store(path: Path, first: Entry, *, durable: bool) -> None:
    """Make the database with its first line; readable by its owner alone.

    Raises:
        PrivacyError: the file exists or cannot be written.
    """
    _create_empty(path)
    with connected(path, durable=durable) as connection, transaction(connection):
        for statement in _SCHEMA.values():
            connection.execute(statement)
        append(connection, first)
    if durable:
        sync_folder(path.parent)


def rows_from(connection: sqlite3.Connection, sequence: int) -> list[tuple[Any, ...]]:
    """Return the lines from ``sequence`` on, in order, after a look at the table itself.

    Raises:
        PrivacyError: the table or its triggers are not as they were made.
    """
    found = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    if found != _SCHEMA:
        raise PrivacyError("not a ledger, or only a part of one, or its tables were altered; restore a backup")
    query = f"SELECT {_COLUMNS} FROM entries WHERE sequence >= ? ORDER BY sequence"  # noqa: S608 - constants
    return connection.execute(query, (sequence,)).fetchall()


def append(connection: sqlite3.Connection, entry: Entry) -> None:
    """Add a line; counts once the transaction ends."""
    connection.execute(_INSERT, entry)


@contextmanager
def transaction(connection: sqlite3.Connection, *, writing: bool = True) -> Iterator[None]:
    """The only writer, or a reader of one moment; committed at the end, undone on error."""
    connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN DEFERRED")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk ends it by itself
            connection.execute("ROLLBACK")
        raise


@contextmanager
def connected(path: Path, *, durable: bool) -> Iterator[sqlite3.Connection]:
    """Open the database, never create it. For a round at most: a thousand simulated clients would run out of files.

    Raises:
        PrivacyError: the file is missing, damaged, locked, read-only or full; with its name, also when raised inside.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with ExitStack() as stack:
        stack.enter_context(naming(path))
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        stack.enter_context(closing(connection))
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        connection.execute("PRAGMA journal_mode = WAL")
        yield connection


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn SQLite's own errors into one that names the file.

    Raises:
        PrivacyError: as said.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise PrivacyError(f"{path}: unusable ledger: {error}; expected an intact, writable file") from None


def copy_store(connection: sqlite3.Connection, target: Path) -> None:
    """Copy the database, what lies in its write-ahead log included, to a new file; on disk on return.

    Raises:
        PrivacyError: the target exists or cannot be written.
    """
    _create_empty(target)
    connection.execute("VACUUM INTO ?", (str(target),))
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(target.parent)


def _create_empty(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise PrivacyError(f"{path}: exists; choose another place") from None
    except OSError as error:
        raise PrivacyError(f"{path}: cannot be written: {error.strerror}") from None
