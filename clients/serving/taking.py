"""Taking events in, one at a time inside one transaction: whose they are, whether known already, whether forgotten."""

import sqlite3

from clients.serving.events import Event
from clients.serving.forgetting import Marks, taken_from
from fedrec.errors import DataError

_ADD_PERSON = "INSERT INTO people (user_id) VALUES (?) ON CONFLICT DO NOTHING"
_ADD_EVENT = """INSERT INTO events (person, item_id, timestamp, kind, query, event_id) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (event_id) DO NOTHING"""
_KNOWN_EVENT = "SELECT person, item_id, timestamp, kind, query FROM events WHERE event_id = ?"


class Taking:
    """What one transaction has done with its events so far: ``added``, ``repeated``, ``forgotten``."""

    def __init__(self, connection: sqlite3.Connection, marks: Marks) -> None:
        self.added = self.repeated = self.forgotten = 0
        self._connection, self._marks = connection, marks
        self._taken_from: dict[str, float] = {}
        self._people: dict[str, int] = {}

    def take(self, event: Event) -> None:
        """Add an event that was checked, unless it is known or its person is forgotten.

        Raises:
            DataError: its id belongs to another event.
        """
        if event.timestamp < self._first_second(event.user_id):
            self.forgotten += 1
            return
        row = (self._person(event.user_id), event.item_id, event.timestamp, event.kind, event.query)
        if self._connection.execute(_ADD_EVENT, (*row, event.event_id)).rowcount:
            self.added += 1
            return
        known = self._connection.execute(_KNOWN_EVENT, (event.event_id,)).fetchall()
        if isinstance(event.event_id, str) and known != [row]:
            raise DataError("event_id: was given to another event before; use each id once")
        self.repeated += 1

    def _first_second(self, user_id: str) -> float:
        if user_id not in self._taken_from:
            self._taken_from[user_id] = taken_from(self._connection, self._marks.of(user_id))
        return self._taken_from[user_id]

    def _person(self, user_id: str) -> int:
        if user_id not in self._people:
            self._connection.execute(_ADD_PERSON, (user_id,))
            query = "SELECT person FROM people WHERE user_id = ?"
            ((self._people[user_id],),) = self._connection.execute(query, (user_id,)).fetchall()
        return self._people[user_id]
