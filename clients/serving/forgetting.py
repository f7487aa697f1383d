"""The right to be forgotten: a person's rows and their bytes go, and a mark stays that tells nobody who it was.

The mark is a keyed hash of the id. Without the key, which lies in a file of its own, it cannot be tried against a list
of ids; with it the store knows whom it must not take in again.
"""

import hashlib
import hmac
import os
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from clients.serving.store_file import StoreFile
from fedrec.errors import RunError
from fedrec.privacy.durable import create_file, read_hex

_KEY_BYTES = 32
_PATIENCE_S = 5.0  # with another connection's checkpoint: it takes milliseconds, but SQLite refuses ours meanwhile


class Forgotten(NamedTuple):
    """Somebody is gone: ``events`` of theirs were deleted, ``at`` seconds since 1970."""

    events: int
    at: int


class Marks:
    """Keyed hashes of ids: HMAC-SHA256 (RFC 2104), 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @property
    def check(self) -> bytes:
        """Tells this key from another, and nothing about anybody."""
        return hmac.digest(self._key, b"fedrec event store", hashlib.sha256)

    def of(self, user_id: str) -> bytes:
        """The mark that a forgotten person leaves."""
        return hmac.digest(self._key, b"person:" + user_id.encode(), hashlib.sha256)


def key_beside(store: Path) -> Path:
    """``NAME.sqlite`` has ``NAME.key`` in the same folder."""
    return store.with_suffix(".key")


def create_key(path: Path) -> Marks:
    """Make a store's key from the operating system's entropy; 0600.

    Raises:
        RunError: the file exists or cannot be written.
    """
    key = os.urandom(_KEY_BYTES)
    try:
        create_file(path, key.hex() + "\n")
    except FileExistsError:
        raise RunError(f"{path}: is the key of a store that is not here; restore it, or choose another place") from None
    except OSError as error:
        raise RunError(f"{path}: the store's key cannot be written: {error.strerror}") from None
    return Marks(key)


def read_key(path: Path) -> Marks:
    """Read a key that ``create_key`` wrote; its content is never shown.

    Raises:
        RunError: unreadable, or not such a key.
    """
    mend = "restore it: without it the store cannot know whom it has forgotten"
    try:
        return Marks(read_hex(path, length=_KEY_BYTES))
    except OSError as error:
        raise RunError(f"{path}: the store's key cannot be read: {error.strerror}; {mend}") from None
    except ValueError as error:
        raise RunError(f"{path}: not a store's key: {error}; {mend}") from None


def forget(connection: sqlite3.Connection, user_id: str, mark: bytes, *, now: int) -> Forgotten:
    """Delete a person's rows and leave the mark; inside a transaction. The bytes go with ``erase``."""
    events = 0
    for (person,) in connection.execute("SELECT person FROM people WHERE user_id = ?", (user_id,)).fetchall():
        events = connection.execute("DELETE FROM events WHERE person = ?", (person,)).rowcount
        connection.execute("DELETE FROM people WHERE person = ?", (person,))
    connection.execute("INSERT OR REPLACE INTO forgotten (mark, at) VALUES (?, ?)", (mark, now))
    return Forgotten(events, now)


def readmit(connection: sqlite3.Connection, mark: bytes, *, now: int) -> bool:
    """Take somebody in again from ``now`` on, inside a transaction; False when they were not forgotten."""
    query = "UPDATE forgotten SET readmitted = max(?, at + 1) WHERE mark = ? AND readmitted IS NULL"
    return connection.execute(query, (now, mark)).rowcount > 0


def taken_from(connection: sqlite3.Connection, mark: bytes) -> float:
    """The first second from which this person's events are taken: 0 for most people, infinity for a forgotten one."""
    row = connection.execute("SELECT readmitted FROM forgotten WHERE mark = ?", (mark,)).fetchone()
    if row is None:
        return 0.0
    return float("inf") if row[0] is None else float(row[0])


def unfinished(connection: sqlite3.Connection) -> int:
    """How many of the forgotten may still have bytes in the files."""
    (count,) = connection.execute("SELECT count(*) FROM forgotten WHERE NOT erased").fetchone()
    return int(count)


def erase(file: StoreFile) -> None:
    """Take the bytes of deleted rows out of the files: the database is written anew, its log cut to nothing.

    ``secure_delete`` alone does not do it: where SQLite splits a page it leaves a copy of what moved, and a row that is
    deleted later is overwritten only where it lies then.

    Raises:
        RunError: the disk is full, or somebody reads without end; the rows stay deleted, and the next opening or
            forgetting tries again.
    """
    with file.connection() as connection:
        gone = connection.execute("SELECT mark FROM forgotten WHERE NOT erased").fetchall()
        connection.execute("PRAGMA temp_store = MEMORY")  # else VACUUM copies everybody else into the system's /tmp
        connection.execute("VACUUM")
        end = time.monotonic() + _PATIENCE_S
        while not _is_log_cut(connection):
            if time.monotonic() > end:
                raise RunError(f"{file.path}: deleted, but a reader holds the old log; forget once more to finish")
            time.sleep(0.01)
        connection.executemany("UPDATE forgotten SET erased = 1 WHERE mark = ?", gone)


def _is_log_cut(connection: sqlite3.Connection) -> bool:
    """Cut the log to nothing, unless somebody is in the way."""
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
