"""The merchant's own store of events: one SQLite file, durable when it says so, that knows whom it has forgotten."""

import math
import sqlite3
import time
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from clients.serving import forgetting
from clients.serving.events import MAX_EVENTS, Event, check_event, check_id
from clients.serving.forgetting import Forgotten, Marks, key_beside
from clients.serving.store_file import (
    StoreFile,
    create_tables,
    damage_of,
    dataset_of,
    keep_dataset,
    key_check_of,
    refuse_other_files,
)
from clients.serving.taking import Taking
from fedrec.errors import DataError, FedrecError, RunError


class Appended(NamedTuple):
    """What became of events: ``added``; ``repeated``, known by their id; ``forgotten``, dropped for a person's sake."""

    added: int
    repeated: int
    forgotten: int


class Choice(NamedTuple):
    """What a person lets the shop do with their events: rank by them, and train on them."""

    personalized: bool = True
    training: bool = True


class Counts(NamedTuple):
    """How much a store holds. For the merchant's eyes.

    Attributes:
        people, events: that are there.
        not_personalized, not_training: people who said no.
        forgotten: people who must not be taken in.
        unfinished: people whose bytes may still be in the files.
    """

    people: int
    events: int
    not_personalized: int
    not_training: int
    forgotten: int
    unfinished: int


class EventStore:
    """Who did what in one shop. Any number of threads and processes may read while one writes; open after a fork.

    Files: ``NAME.sqlite`` and its log, and ``NAME.key``, which tells the forgotten from others; all 0600. No error or
    log line holds an id.
    """

    def __init__(self, file: StoreFile, marks: Marks, clock: Callable[[], float]) -> None:
        self._file, self._marks, self._clock = file, marks, clock

    @classmethod
    def create(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Make an empty store and its key.

        Raises:
            RunError: one of them exists or cannot be written; nothing is left of the other.
        """
        if path.exists():
            raise RunError(f"{path}: exists; open it, or choose another place")
        key = key_beside(path)
        marks = forgetting.create_key(key)
        try:
            create_tables(path, marks.check)
        except FedrecError:
            key.unlink(missing_ok=True)
            raise
        return cls(StoreFile(path), marks, clock)

    @classmethod
    def open(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Open a store, and finish a forgetting that was cut short.

        Raises:
            RunError: the store or its key is missing, damaged or foreign, or this is no store.
        """
        if not path.exists():
            raise RunError(f"{path}: no event store here; make one with `fedrec store import`")
        refuse_other_files(path)
        file, marks = StoreFile(path), forgetting.read_key(key_beside(path))
        if key_check_of(file) != marks.check:
            file.close()
            raise RunError(f"{key_beside(path)}: is not this store's key; restore it, no other key fits")
        store = cls(file, marks, clock)
        with suppress(RunError):  # what cannot be finished now is found by `count`, and tried again
            if store.count().unfinished:
                forgetting.erase(file)
        return store

    def append(self, events: Sequence[Event], *, known_items: Container[str] | None = None) -> Appended:
        """Take events in, all or none; on disk on return.

        Args:
            events: at most ``MAX_EVENTS``. One whose ``event_id`` is known already is not taken again.
            known_items: other items are refused; any item is taken when None.

        Raises:
            DataError: names the first event, from 0, and the field that is wrong.
            RunError: they could not be written; none is acknowledged, and to send them again is safe with ids.
        """
        if len(events) > MAX_EVENTS:
            raise DataError(f"{len(events)} events; expected at most {MAX_EVENTS} at once")
        named = ((f"event {index}", event) for index, event in enumerate(events))
        return self.append_all(named, known_items=known_items)

    def append_all(self, events: Iterable[tuple[str, Event]], *, known_items: Container[str] | None = None) -> Appended:
        """As ``append``, of however many, one at a time; each comes with its name for an error's text."""
        now = self._clock()
        with self._file.transaction() as connection:
            taking = Taking(connection, self._marks)
            for name, event in events:
                try:
                    checked = check_event(event, now=now)
                    if known_items is not None and event.item_id not in known_items:
                        raise DataError("item_id: is not in the catalogue")
                    taking.take(checked)
                except DataError as error:
                    raise DataError(f"{name}: {error}") from None
        return Appended(taking.added, taking.repeated, taking.forgotten)

    def history(
        self, user_id: str, *, kinds: Collection[str] | None = None, latest: int | None = None
    ) -> tuple[list[str], list[int]]:
        """A person's items and their times in seconds, oldest first; of equal times in the order they were appended.

        Args:
            kinds: of events; all when None.
            latest: at most so many, >= 1; all when None.

        Raises:
            DataError: the id is none.
        """
        check_id(user_id, field="user_id")
        wanted, values = _kinds_condition(kinds)
        query = f"SELECT item_id, timestamp FROM events JOIN people USING (person) WHERE user_id = ?{wanted} "  # noqa: S608 - constants
        query += "ORDER BY timestamp DESC, sequence DESC LIMIT ?"
        with self._file.connection() as connection:
            rows = connection.execute(query, (user_id, *values, -1 if latest is None else latest)).fetchall()
        return [item for item, _ in reversed(rows)], [at for _, at in reversed(rows)]

    def training_rows(
        self, *, kinds: Collection[str] | None = None, chunk: int = 50_000
    ) -> Iterable[list[tuple[str, str, int]]]:
        """(user_id, item_id, timestamp) of those who let us train, in the order appended, as of one moment."""
        wanted, values = _kinds_condition(kinds)
        query = f"SELECT user_id, item_id, timestamp FROM events JOIN people USING (person) WHERE training{wanted} "  # noqa: S608 - constants
        with self._file.connection() as connection:
            cursor = connection.execute(query + "ORDER BY sequence", values)
            try:
                while rows := cursor.fetchmany(chunk):
                    yield rows
            finally:
                cursor.close()  # else it would hold on to the log

    def withheld(self) -> int:
        """How many events are of people who said no to training."""
        query = "SELECT count(*) FROM events JOIN people USING (person) WHERE NOT training"
        with self._file.connection() as connection:
            return int(connection.execute(query).fetchone()[0])

    def dataset(self) -> str | None:
        """Under what identity a ledger counts the privacy of these people; None before the first federation."""
        with self._file.connection() as connection:
            return dataset_of(connection)

    def keep_dataset(self, identity: str) -> str:
        """Note that identity for ever, in this file and every later copy; return what is noted, perhaps by another."""
        with self._file.transaction() as connection:
            if known := dataset_of(connection):
                return known
            keep_dataset(connection, identity)
        return identity

    def query_rows(self) -> list[tuple[str, str, str]]:
        """(user_id, query, item_id) of events that a query led to, of those who let us train, in the order appended."""
        query = """SELECT user_id, query, item_id FROM events JOIN people USING (person)
            WHERE training AND query IS NOT NULL ORDER BY sequence"""
        with self._file.connection() as connection:
            return connection.execute(query).fetchall()

    def people(self) -> list[str]:
        """Everybody's id, sorted."""
        with self._file.connection() as connection:
            return [user_id for (user_id,) in connection.execute("SELECT user_id FROM people ORDER BY user_id")]

    def permissions(self) -> tuple[float, ...]:
        """Numbers that change whenever somebody is forgotten, readmitted, or says another thing about training."""
        query = """SELECT * FROM (SELECT count(*), total(at), total(readmitted) FROM forgotten),
            (SELECT count(*), total(person), total(person * person) FROM people WHERE NOT training)"""
        with self._file.connection() as connection:
            return tuple(connection.execute(query).fetchone())

    def count(self) -> Counts:
        """How much is there."""
        query = """SELECT (SELECT count(*) FROM people), (SELECT count(*) FROM events),
            (SELECT count(*) FROM people WHERE NOT personalized), (SELECT count(*) FROM people WHERE NOT training),
            (SELECT count(*) FROM forgotten WHERE readmitted IS NULL)"""
        with self._file.connection() as connection:
            people, events, unranked, untrained, forgotten = connection.execute(query).fetchone()
            return Counts(people, events, unranked, untrained, forgotten, forgetting.unfinished(connection))

    def choice(self, user_id: str) -> Choice:
        """What somebody allows: everything until they say otherwise, nothing once they are forgotten.

        Raises:
            DataError: the id is none.
        """
        check_id(user_id, field="user_id")
        query = "SELECT personalized, training FROM people WHERE user_id = ?"
        with self._file.connection() as connection:
            if self._is_forgotten(connection, user_id):
                return Choice(personalized=False, training=False)
            row = connection.execute(query, (user_id,)).fetchone()
        return Choice(*map(bool, row)) if row else Choice()

    def set_choice(self, user_id: str, *, personalized: bool | None = None, training: bool | None = None) -> Choice:
        """Note what somebody allows from now on, also before their first event; None leaves it as it is.

        Raises:
            DataError: the id is none, or this person is forgotten.
        """
        check_id(user_id, field="user_id")
        query = """UPDATE people SET personalized = coalesce(?, personalized), training = coalesce(?, training)
            WHERE user_id = ? RETURNING personalized, training"""
        with self._file.transaction() as connection:
            if self._is_forgotten(connection, user_id):
                raise DataError("user_id: is of somebody who was forgotten, and so allows nothing; readmit them first")
            connection.execute("INSERT INTO people (user_id) VALUES (?) ON CONFLICT DO NOTHING", (user_id,))
            (row,) = connection.execute(query, (personalized, training, user_id)).fetchall()
        return Choice(*map(bool, row))

    def forget(self, user_id: str) -> Forgotten:
        """Delete a person for good, bytes and all, and take nothing more of theirs in until they are readmitted.

        Rewrites the whole file by way of memory, while other writers wait: a second for a million events.

        Raises:
            DataError: the id is none.
            RunError: the rows are deleted and the bytes are not, yet; the next opening or forgetting tries again.
        """
        check_id(user_id, field="user_id")
        with self._file.transaction() as connection:
            gone = forgetting.forget(connection, user_id, self._marks.of(user_id), now=int(self._clock()))
        forgetting.erase(self._file)
        return gone

    def readmit(self, user_id: str) -> bool:
        """Take somebody's events in again who was forgotten: those from now on, never the older ones.

        Returns:
            False when they were not forgotten.

        Raises:
            DataError: the id is none.
        """
        check_id(user_id, field="user_id")
        with self._file.transaction() as connection:
            return forgetting.readmit(connection, self._marks.of(user_id), now=math.ceil(self._clock()))

    def _is_forgotten(self, connection: sqlite3.Connection, user_id: str) -> bool:
        return forgetting.taken_from(connection, self._marks.of(user_id)) == math.inf

    def damage(self) -> str | None:
        """What is wrong with the file's structure, if anything. Reads all of it."""
        return damage_of(self._file)

    def close(self) -> None:
        """Let go of the files; call it when no thread uses the store any more."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kinds_condition(kinds: Collection[str] | None) -> tuple[str, tuple[str, ...]]:
    """An SQL condition on the kind of event, and its values."""
    values = () if kinds is None else tuple(kinds)
    return "" if kinds is None else f" AND kind IN ({', '.join('?' * len(values))})", values
