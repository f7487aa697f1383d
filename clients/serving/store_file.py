"""The event store's SQLite file: its tables, its connections, and what can go wrong with it in words."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedrec.errors import RunError
from fedrec.privacy.durable import sync_folder

_BUSY_TIMEOUT_S = 30.0
_BEGINS = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html, section 1.3
_SCHEMA = {
    "store": "CREATE TABLE store (key_check BLOB NOT NULL)",
    "people": "CREATE TABLE people (person INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE, "
    "personalized INTEGER NOT NULL DEFAULT 1, training INTEGER NOT NULL DEFAULT 1)",
    "events": "CREATE TABLE events (sequence INTEGER PRIMARY KEY, person INTEGER NOT NULL, item_id TEXT NOT NULL, "
    "timestamp INTEGER NOT NULL, kind TEXT NOT NULL, query TEXT, event_id UNIQUE)",
    "events_of_a_person": "CREATE INDEX events_of_a_person ON events (person, timestamp)",
    "forgotten": "CREATE TABLE forgotten (mark BLOB PRIMARY KEY, at INTEGER NOT NULL, readmitted INTEGER, "
    "erased INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
}
_LEDGER = {"dataset": "CREATE TABLE dataset (identity TEXT NOT NULL)"}  # from the first federation that was joined
_RESTORE = "restore a backup with its key, or import the events into a new store"
_MENDS = {
    "FULL": "the disk is full; make room and try again",
    "IOERR": "the disk refuses, perhaps because it is full; make room and try again",
    "READONLY": "it may not be written; give its owner the right to",
    "PERM": "it may not be written; give its owner the right to",
    "CANTOPEN": "it cannot be opened; is it a file that this user may read and write?",
    "BUSY": f"another process has held it for {_BUSY_TIMEOUT_S:.0f} s; try again",
    "LOCKED": "it is in use; try again",
}


class StoreFile:
    """Connections to one store. A connection serves one thread at a time, and waits for the next when it is done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection of this thread's own; read everything from it before it goes back.

        Raises:
            RunError: the file is missing, damaged, locked, read-only or full; with its name, also when raised inside.
        """
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        try:
            connection = connection or self._connect()
            yield connection
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()  # what it holds of a damaged file is not to be trusted
                connection = None
            raise RunError(told(self.path, error)) from None
        finally:
            if connection is not None:
                with self._lock:
                    self._idle.append(connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The only writer; on disk at the end, undone on error.

        Raises:
            RunError: as ``connection``.
        """
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk ends it by itself
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close what is idle; call it when no thread uses the store any more."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode=rw"  # never creates
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """The database, and the log and index that SQLite keeps beside it while it is open."""
    return path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def create_tables(path: Path, key_check: bytes) -> None:
    """Make a store without events; readable by its owner alone.

    Raises:
        RunError: the file exists or cannot be written.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise RunError(f"{path}: exists; open it, or choose another place") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None
    file = StoreFile(path)
    try:
        with file.transaction() as connection:
            for statement in _SCHEMA.values():
                connection.execute(statement)
            connection.execute("INSERT INTO store VALUES (?)", (key_check,))
    except RunError:
        for left in files_of(path):
            left.unlink(missing_ok=True)
        raise
    finally:
        file.close()
    sync_folder(path.parent)


def refuse_other_files(path: Path) -> None:
    """Look at how a file begins, before its key is missed or SQLite is let at it.

    Raises:
        RunError: it is a folder, cannot be read, or SQLite has not written it.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(_BEGINS))
    except OSError as error:
        raise RunError(f"{path}: cannot be read as an event store: {error.strerror}; name a store's file") from None
    if begins != _BEGINS:
        raise RunError(f"{path}: not an event store, or its beginning is lost; {_RESTORE}")


def key_check_of(file: StoreFile) -> bytes:
    """Return what tells whether a key is the store's own, after a look at the tables.

    Raises:
        RunError: the file is no event store, or its tables were altered.
    """
    with file.connection() as connection:
        found = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
        is_whole = found in (_SCHEMA, _SCHEMA | _LEDGER)
        rows = connection.execute("SELECT key_check FROM store").fetchall() if is_whole else []
    if len(rows) != 1:
        raise RunError(f"{file.path}: not an event store of this version, or a part of one; {_RESTORE}")
    return bytes(rows[0][0])


def dataset_of(connection: sqlite3.Connection) -> str | None:
    """Under what identity a ledger counts the privacy of these people; None before the first federation."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dataset'").fetchone()
    row = connection.execute("SELECT identity FROM dataset").fetchone() if found else None
    return str(row[0]) if row else None


def keep_dataset(connection: sqlite3.Connection, identity: str) -> None:
    """Note the identity; inside a transaction, where there is none yet."""
    connection.execute(_LEDGER["dataset"])
    connection.execute("INSERT INTO dataset VALUES (?)", (identity,))


def damage_of(file: StoreFile) -> str | None:
    """The first thing wrong with the file's structure; None when it is whole. Reads all of it."""
    with file.connection() as connection:
        (first,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return None if first == "ok" else str(first)


def told(path: Path, error: sqlite3.Error) -> str:
    """What SQLite says, in one line that names the file and the mend, and no content."""
    name = getattr(error, "sqlite_errorname", "") or ""
    mend = next((mend for kind, mend in _MENDS.items() if name.startswith(f"SQLITE_{kind}")), _RESTORE)
    return f"{path}: unusable event store: {error}; {mend}"
