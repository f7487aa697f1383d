"""What the verified lines of a ledger add up to. Grows a line at a time, so that a charge need not re-read all."""

import sqlite3
from bisect import bisect_right
from collections import Counter
from typing import NamedTuple

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps
from fedrec.privacy.ledger_entries import Entry, Kind, State, verified
from fedrec.privacy.ledger_store import rows_from
from fedrec.privacy.witness import Witness

DAY_S = 86_400
COUNTERSIGNED_IS_LOST = (
    "rolled back: the server has countersigned an entry this ledger does not hold; restore the newest backup"
)


class Round(NamedTuple):
    """One charged round: its reservation, what became of it, and the digest of the line that says so."""

    reserved: Entry
    state: str
    head: str


class Run(NamedTuple):
    """What shares one promise: a plan (digest) and the run that follows it."""

    plan: str
    name: str


class Book:
    """Running totals of the lines applied so far. Charges count in full until they are settled.

    Attributes:
        newest: the last line; None before the first.
        rounds: by round_id.
    """

    def __init__(self) -> None:
        self.newest: Entry | None = None
        self.rounds: dict[str, Round] = {}
        self._charges: dict[int, str] = {}  # round_id of each reservation
        self._sequences: dict[str, int] = {}  # of each head
        self._spent: Counter[Steps] = Counter()  # steps of each mechanism, named by its Steps with steps=0
        self._used: Counter[tuple[Run, str]] = Counter()  # steps of each run and kind
        self._training_at: list[int] = []
        self._training_steps: list[int] = [0]  # running sums, one longer than the times

    def apply(self, entry: Entry) -> None:
        """Take in the next line, which has been verified."""
        self.newest = entry
        self._sequences[entry.mac] = entry.sequence
        if entry.state == State.RESERVED:
            self.rounds[entry.round_id] = Round(entry, entry.state, entry.mac)
            self._charges[entry.sequence] = entry.round_id
            self._count(entry, entry.steps)
            if entry.kind == Kind.TRAINING:
                self._training_at.append(entry.at)
                self._training_steps.append(self._training_steps[-1] + entry.steps)
        elif entry.state in (State.RELEASED, State.SETTLED):
            reserved = self.rounds[entry.round_id].reserved
            self.rounds[entry.round_id] = Round(reserved, entry.state, entry.mac)
            if entry.state == State.SETTLED:
                self._count(reserved, entry.steps - reserved.steps)

    def _count(self, entry: Entry, steps: int) -> None:
        self._spent[entry.spending._replace(steps=0)] += steps
        self._used[Run(entry.plan, entry.run), entry.kind] += steps

    @property
    def head(self) -> Entry:
        """The last line of a ledger, which has at least one."""
        if self.newest is None:
            raise PrivacyError("the ledger has no first entry; restore a backup")
        return self.newest

    def round_at(self, sequence: int) -> Round | None:
        """The round that this line charged; None when it is no charge."""
        return self.rounds.get(self._charges.get(sequence, ""))

    def spendings(self, *more: Steps) -> tuple[Steps, ...]:
        """Everything spent, one item a mechanism, as if ``more`` were spent too."""
        total = self._spent.copy()
        for steps in more:
            total[steps._replace(steps=0)] += steps.steps
        return tuple(mechanism._replace(steps=steps) for mechanism, steps in total.items() if steps > 0)

    def runs(self) -> set[Run]:
        """Every plan and run that was ever charged here."""
        return {run for run, _ in self._used}

    def used(self, run: Run, kind: Kind) -> int:
        """Steps (or releases) charged to one run."""
        return self._used[run, kind.value]

    def training(self, since: int | None = None) -> tuple[int, int]:
        """Rounds and steps of training as they were charged, all or those after ``since``."""
        first = 0 if since is None else bisect_right(self._training_at, since)
        return len(self._training_at) - first, self._training_steps[-1] - self._training_steps[first]

    def sequence_of(self, head: str) -> int | None:
        """Where the line with this digest stands; None when there is no such line."""
        return self._sequences.get(head)

    def check_witness(self, witness: Witness) -> None:
        """Refuse a ledger that lacks what its witness has seen.

        Raises:
            PrivacyError: lines were removed, or an older copy was put in place.
        """
        if self.sequence_of(witness.head) != witness.sequence:
            raise PrivacyError(
                f"rolled back: holds {self.head.sequence} entries, and its witness saw another ledger, "
                f"{witness.sequence} entries long; restore the newest backup"
            )
        if witness.countersigned and self.sequence_of(witness.countersigned.head) is None:
            raise PrivacyError(COUNTERSIGNED_IS_LOST)


def take_up(connection: sqlite3.Connection, book: Book, *, key: bytes, witness: Witness | None) -> list[Entry]:
    """Verify the lines that ``book`` does not know yet, apply them and return them; inside a transaction.

    Args:
        connection: to the ledger.
        book: may be empty; then everything is verified.
        key: of the ledger.
        witness: read before the transaction began; None only where it is about to be made anew.

    Raises:
        PrivacyError: a line was altered or removed, or the witness saw more.
    """
    known = book.newest
    rows = rows_from(connection, known.sequence if known else 0)
    if known is not None and rows[:1] != [known]:
        raise PrivacyError(f"rolled back: entry {known.sequence} is no longer as it was; restore the newest backup")
    fresh = []
    for entry in verified(rows[1:] if known else rows, after=known, key=key):
        book.apply(entry)
        fresh.append(entry)
    if witness is not None:
        book.check_witness(witness)
    return fresh
