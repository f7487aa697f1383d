"""Reading and writing one ledger's three files so that they never disagree in the dangerous direction.

A line is on disk before the witness names it, and the witness names it before anyone is told. So a crash
can leave a ledger that is ahead of its witness, which is harmless, and never one that is behind.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fedrec.errors import PrivacyError
from fedrec.privacy.ledger_book import COUNTERSIGNED_IS_LOST, Book, take_up
from fedrec.privacy.ledger_entries import Entry, next_entry
from fedrec.privacy.ledger_files import LedgerFiles, check_present, read_key
from fedrec.privacy.ledger_store import append, connected, copy_store, naming, transaction
from fedrec.privacy.witness import Countersigned, Witness, read_witness, write_witness


class LedgerAccess:
    """Open files of one ledger and what was verified of them so far; threads take turns.

    A connection lives as long as one operation, or as one ``session``: a thousand simulated clients would run out of
    files.
    """

    def __init__(self, files: LedgerFiles, *, durable: bool) -> None:
        """Refuse missing files, and read the key.

        Raises:
            PrivacyError: ledger or key is missing or unreadable.
        """
        check_present(files)
        self.files = files
        self._key = read_key(files.key)
        self._durable = durable
        self._book = Book()
        self._alone = threading.Lock()
        self._session = _Session()

    @contextmanager
    def session(self) -> Iterator[None]:
        """Let this thread's operations inside share one connection, which is opened when it is first needed.

        Each of them still reads what the file holds then, and refuses another that was put in its place.
        """
        with ExitStack() as stack:
            self._session.stack = stack
            try:
                yield
            finally:
                self._session.stack = self._session.connection = None

    @contextmanager
    def reading(self) -> Iterator[Book]:
        """Everything up to this moment; only what is new since the last call is verified.

        Raises:
            PrivacyError: the ledger is not intact.
        """
        with self._connected() as (connection, witness), transaction(connection, writing=False):
            self._take_up(connection, self._book, witness)
            yield self._book

    @contextmanager
    def writing(self) -> Iterator["Writer"]:
        """The same as the only writer. What is appended is on disk, read back and witnessed when this ends.

        Raises:
            PrivacyError: the ledger is not intact or cannot be written.
        """
        with self._connected() as (connection, witness):
            with transaction(connection):
                self._take_up(connection, self._book, witness)
                yield Writer(connection, self._book, self._key)
            with transaction(connection):  # the writer again, so that the witness never goes back
                self._take_up(connection, self._book, witness)
                self._attest()

    def entries(self) -> tuple[Entry, ...]:
        """All lines, every one verified anew.

        Raises:
            PrivacyError: the ledger is not intact.
        """
        with self._connected() as (connection, witness), transaction(connection, writing=False):
            return tuple(self._take_up(connection, Book(), witness))

    def countersigned(self) -> Countersigned | None:
        """What the server signed last, as far as is known here.

        Raises:
            PrivacyError: the ledger is not intact.
        """
        with self._connected() as (connection, witness), transaction(connection, writing=False):
            self._take_up(connection, self._book, witness)
            return witness.countersigned

    def keep(self, countersigned: Countersigned) -> None:
        """Keep a signature that was checked, unless a newer one is kept.

        Raises:
            PrivacyError: no line of this ledger was signed, or the ledger is not intact.
        """
        with self._connected() as (connection, witness), transaction(connection):
            self._take_up(connection, self._book, witness)
            if self._book.sequence_of(countersigned.head) is None:
                raise PrivacyError(f"{self.files.ledger}: {COUNTERSIGNED_IS_LOST}")
            self._attest(countersigned)

    def backup(self, target: Path) -> None:
        """Copy the ledger to a new file, and verify the copy; a copy that fails is removed.

        Raises:
            PrivacyError: the target exists or cannot be written, or the ledger is not intact.
        """
        with self._connected() as (connection, witness):
            with transaction(connection, writing=False):
                self._take_up(connection, self._book, witness)
            copy_store(connection, target)
        try:
            with connected(target, durable=self._durable) as copy, transaction(copy, writing=False):
                self._take_up(copy, Book(), witness)
        except PrivacyError:
            with suppress(OSError):
                target.unlink()
            raise

    @contextmanager
    def _connected(self) -> Iterator[tuple[sqlite3.Connection, Witness]]:
        """A connection, and the witness as it was before any transaction: the ledger can only be ahead of it."""
        with self._alone, self._connection() as connection:
            yield connection, read_witness(self.files.witness, key=self._key)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, or that of the session."""
        own, path = self._session, self.files.ledger
        if own.stack is None:
            with connected(path, durable=self._durable) as connection:
                yield connection
            return
        with naming(path):
            file = _file_at(path)  # before opening: one that comes in between is noticed next time
            if own.connection is None:
                own.connection, own.file = own.stack.enter_context(connected(path, durable=self._durable)), file
            elif file != own.file:
                raise PrivacyError(f"{path}: was moved or replaced while in use; restore the newest backup")
            yield own.connection

    def _take_up(self, connection: sqlite3.Connection, book: Book, witness: Witness) -> list[Entry]:
        try:
            return take_up(connection, book, key=self._key, witness=witness)
        except PrivacyError as error:
            raise PrivacyError(f"{self.files.ledger}: {error}") from None

    def _attest(self, countersigned: Countersigned | None = None) -> None:
        """Bring the witness up to the newest line; by the only writer."""
        seen = read_witness(self.files.witness, key=self._key)
        newest, kept = self._book.head, seen.countersigned
        if countersigned and (not kept or self._place(countersigned) > self._place(kept)):
            kept = countersigned
        witness = Witness(newest.sequence, newest.mac, kept)
        if witness != seen:
            write_witness(witness, self.files.witness, key=self._key, durable=self._durable)

    def _place(self, countersigned: Countersigned) -> int:
        return self._book.sequence_of(countersigned.head) or 0


class _Session(threading.local):
    """What one thread keeps open.

    Attributes:
        stack: closes it; None outside of a session.
        file: which file ``connection`` has open.
    """

    stack: ExitStack | None = None
    connection: sqlite3.Connection | None = None
    file: tuple[int, int] | None = None


def _file_at(path: Path) -> tuple[int, int] | None:
    """What tells the file at ``path`` from another that is put in its place; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Writer:
    """Inside ``LedgerAccess.writing``: what is known, and the way to add a line to it."""

    def __init__(self, connection: sqlite3.Connection, book: Book, key: bytes) -> None:
        """Use ``LedgerAccess.writing``."""
        self._connection = connection
        self.book = book
        self._key = key

    def append(self, draft: Entry, *, at: int) -> None:
        """Add one line; its place, digest and time (never before the line above) are set here."""
        append(self._connection, next_entry(draft, after=self.book.head, at=at, key=self._key))


def accept_head(files: LedgerFiles) -> Entry:
    """Make a lost or damaged witness anew from the ledger as it stands, and return the newest line.

    The owner's explicit decision: from here on nobody on this machine can tell whether lines are missing
    at the end. A witness that is intact is never replaced, so this cannot undo a rollback.

    Raises:
        PrivacyError: the witness is intact, or the ledger itself is missing or altered.
    """
    check_present(files)
    key, book = read_key(files.key), Book()
    if _has_witness(files, key):
        raise PrivacyError(f"{files.witness}: the witness is intact; expected a missing or damaged one")
    try:
        with connected(files.ledger, durable=True) as connection, transaction(connection):
            take_up(connection, book, key=key, witness=None)
            newest = book.head
            write_witness(Witness(newest.sequence, newest.mac), files.witness, key=key, durable=True)
    except PrivacyError as error:
        raise PrivacyError(f"{files.ledger}: {error}") from None
    return newest


def _has_witness(files: LedgerFiles, key: bytes) -> bool:
    try:
        read_witness(files.witness, key=key)
    except PrivacyError:
        return False
    return True
