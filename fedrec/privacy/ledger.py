"""The client's own record of privacy spent: charged before training, never changed afterwards.

One SQLite file a client. It records mechanism events, not epsilons, so that a better accountant can
be run over it later. Entries are chained by SHA-256: an edited, removed or reordered entry is found.
Someone who may write the file can still replace it whole; a countersigned head is what would show it.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps, composed_epsilon, round_up
from fedrec.privacy.plan import PrivacyPlan

_BUSY_TIMEOUT_S = 30.0
_START = "0" * 64
_AS_WRITTEN = "expected the ledger as written"
_SCHEMA = """
CREATE TABLE entries (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, plan TEXT NOT NULL, round_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'released')),
    noise_multiplier REAL NOT NULL, sampling_rate REAL NOT NULL, steps INTEGER NOT NULL,
    previous TEXT NOT NULL, hash TEXT NOT NULL,
    UNIQUE (round_id, state));
CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


class Charge(StrEnum):
    """What ``Ledger.charge`` did."""

    CHARGED = "charged"
    ALREADY_CHARGED = "already charged"


class Entry(NamedTuple):
    """One line of the ledger. ``released`` lines cost nothing: they note that a charged round was sent."""

    sequence: int
    key: str
    plan: str
    round_id: str
    state: str
    noise_multiplier: float
    sampling_rate: float
    steps: int
    previous: str
    hash: str


class Ledger:
    """Privacy spent on one data set and unit, by whatever runs and plans.

    ``create`` refuses an existing file and ``open`` a missing one: a lost ledger is never a fresh budget.
    """

    def __init__(self, path: Path, *, dataset: str, plan: PrivacyPlan, durable: bool) -> None:
        """Use ``create`` or ``open``."""
        self._path = path
        self._key = f"{dataset}/{plan.unit}"
        self._plan = plan
        self._durable = durable

    @classmethod
    def create(cls, path: Path, *, dataset: str, plan: PrivacyPlan, durable: bool = True) -> Self:
        """Start a ledger for people on whom nothing was spent yet.

        Args:
            path: a file that does not exist; readable by its owner alone.
            dataset: identity of the people's data, such as a digest; stays when a new run begins.
            plan: the promise that charges are checked against.
            durable: false trades safety from power loss for speed; for simulations.

        Raises:
            PrivacyError: the file exists or cannot be written.
        """
        ledger = cls(path, dataset=dataset, plan=plan, durable=durable)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise PrivacyError(f"{path}: a ledger exists; open it, or choose another place") from None
        except OSError as error:
            raise PrivacyError(f"{path}: the ledger cannot be written: {error.strerror}") from None
        with ledger._connection() as connection:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        return ledger

    @classmethod
    def open(cls, path: Path, *, dataset: str, plan: PrivacyPlan, durable: bool = True) -> Self:
        """Go on with an existing ledger, after checking all of it.

        Raises:
            PrivacyError: missing, unreadable, altered, or of another data set.
        """
        ledger = cls(path, dataset=dataset, plan=plan, durable=durable)
        ledger.entries()
        return ledger

    def charge(self, round_id: str, steps: int) -> Charge:
        """Book ``steps`` steps of the plan, before taking them. On return the charge is on disk.

        Returns:
            ``ALREADY_CHARGED`` when this round was booked before, as after a crash: nothing is added.
            Then the round may be computed anew only if its first result was never sent.

        Raises:
            PrivacyError: history and these steps together exceed the plan's epsilon; the round was booked
                with other steps or another plan; or the file is altered. Nothing is booked.
        """
        if not round_id or type(steps) is not int or not 1 <= steps <= self._plan.steps:
            most = self._plan.steps
            raise PrivacyError(f"round {round_id!r}, steps={steps!r}: expected a name and 1 to {most} steps")
        with self._transaction() as connection:
            entries = self._read(connection)
            for entry in entries:
                if entry.round_id == round_id:
                    return self._already_charged(entry, steps)
            self._check_budget([*_spendings(entries), self._steps(steps)])
            self._append(connection, entries, round_id=round_id, state="reserved", spending=self._steps(steps))
        return Charge.CHARGED

    def release(self, round_id: str) -> None:
        """Note that the round's result was sent. Repeating it changes nothing.

        Raises:
            PrivacyError: the round was never charged, or the file is altered.
        """
        with self._transaction() as connection:
            entries = self._read(connection)
            states = {entry.state for entry in entries if entry.round_id == round_id}
            if not states:
                raise PrivacyError(f"round {round_id!r}: never charged; expected charge before release")
            if "released" not in states:
                self._append(connection, entries, round_id=round_id, state="released", spending=self._steps(0))

    def is_released(self, round_id: str) -> bool:
        """Whether the round's result was sent."""
        return any(entry.round_id == round_id and entry.state == "released" for entry in self.entries())

    def spent(self) -> float:
        """Epsilon of everything charged, at the plan's delta; infinity once a round went without noise.

        Raises:
            PrivacyError: the file is missing, unreadable or altered.
        """
        return self._epsilon(_spendings(self.entries()))

    def entries(self) -> tuple[Entry, ...]:
        """All lines, oldest first, verified.

        Raises:
            PrivacyError: the file is missing, unreadable, altered, or of another data set.
        """
        with self._transaction("DEFERRED") as connection:
            return tuple(self._read(connection))

    def _already_charged(self, entry: Entry, steps: int) -> Charge:
        if entry.steps != steps or entry.plan != self._plan.digest():
            raise PrivacyError(f"round {entry.round_id!r}: charged with other steps or another plan; expected the same")
        return Charge.ALREADY_CHARGED

    def _steps(self, steps: int) -> Steps:
        return Steps(self._plan.noise_multiplier, self._plan.sampling_rate, steps)

    def _epsilon(self, spendings: list[Steps]) -> float:
        if not spendings:
            return 0.0
        return float("inf") if self._plan.delta is None else composed_epsilon(tuple(spendings), self._plan.delta)

    def _check_budget(self, spendings: list[Steps]) -> None:
        if self._plan.epsilon is None:
            return
        one_mechanism = {spending[:2] for spending in spendings} == {self._steps(0)[:2]}
        if one_mechanism and sum(spending.steps for spending in spendings) <= self._plan.steps:
            return  # part of the plan, whose epsilon is verified; saves the accountant's time
        total = self._epsilon(spendings)
        if not total <= self._plan.epsilon:
            raise PrivacyError(
                f"{self._path}: the charge would bring epsilon to {round_up(total)}, expected <= {self._plan.epsilon} "
                f"at delta {self._plan.delta}, {self._plan.unit}, {self._plan.relation}, {self._plan.accountant}"
            )

    def _append(
        self, connection: sqlite3.Connection, entries: list[Entry], *, round_id: str, state: str, spending: Steps
    ) -> None:
        previous = entries[-1].hash if entries else _START
        plan = self._plan.digest()
        entry = Entry(len(entries) + 1, self._key, plan, round_id, state, *spending, previous, "")
        values = entry._replace(hash=_hash(entry))
        connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def _read(self, connection: sqlite3.Connection) -> list[Entry]:
        """Every line, with the chain, the numbering and the owner verified."""
        entries = [Entry(*row) for row in connection.execute("SELECT * FROM entries ORDER BY sequence")]
        last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
        previous = _START
        for number, entry in enumerate(entries, start=1):
            if entry.sequence != number or entry.previous != previous or entry.hash != _hash(entry):
                raise PrivacyError(f"{self._path}: entry {number} was altered; {_AS_WRITTEN}")
            if entry.key != self._key:
                raise PrivacyError(f"{self._path}: belongs to another data set or unit; expected {self._key!r}")
            previous = entry.hash
        if (last[0] if last else 0) != len(entries):
            raise PrivacyError(f"{self._path}: entries after {len(entries)} were removed; {_AS_WRITTEN}")
        return entries

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """The only writer (or, DEFERRED, a reader of one moment); committed at the end, undone on error."""
        with self._connection() as connection:
            connection.execute(f"BEGIN {kind}")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Opened anew each time: a thousand simulated clients would run out of file handles otherwise."""
        uri = f"{self._path.absolute().as_uri()}?mode=rw"  # rw: never create
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)) as connection:
                connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
                connection.execute("PRAGMA journal_mode = WAL")
                yield connection
        except sqlite3.Error as error:
            raise PrivacyError(f"{self._path}: unusable ledger: {error}; expected an intact, writable file") from None


def _spendings(entries: list[Entry] | tuple[Entry, ...]) -> list[Steps]:
    reserved = [entry for entry in entries if entry.state == "reserved"]
    return [Steps(entry.noise_multiplier, entry.sampling_rate, entry.steps) for entry in reserved]


def _hash(entry: Entry) -> str:
    return hashlib.sha256(json.dumps(entry[:-1]).encode()).hexdigest()
