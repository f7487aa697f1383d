"""The client's own record of privacy spent: charged before training, never changed afterwards.

One SQLite file for one data set and unit, whatever runs and plans use it, with a key and a witness
outside the file (``LedgerFiles``). Whoever can write the file but not read the key cannot change a line
unseen; whoever can write all three can still put an older state in place, and a head that the server
countersigned is what shows that.
"""

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Self

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps
from fedrec.privacy.ledger_access import LedgerAccess
from fedrec.privacy.ledger_entries import Entry, Kind, State, first_entry
from fedrec.privacy.ledger_files import LedgerFiles, check_absent, create_key
from fedrec.privacy.ledger_limits import (
    check_limits,
    check_repeat,
    checked_request,
    is_name,
    reservation,
    spent_epsilon,
)
from fedrec.privacy.ledger_store import create_store
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
from fedrec.privacy.witness import Countersigned, Witness, write_witness
from fedrec.signing import Purpose, is_signed

__all__ = ["Charge", "Entry", "Kind", "Ledger", "LedgerFiles", "State"]


class Charge(StrEnum):
    """What ``Ledger.charge`` did."""

    CHARGED = "charged"
    ALREADY_CHARGED = "already charged"


class Ledger:
    """Privacy spent on one data set and unit, by whatever runs and plans.

    ``create`` refuses existing files and ``open`` missing ones: a lost ledger is never a fresh budget.
    """

    def __init__(self, access: LedgerAccess, *, policy: Policy | None, clock: Callable[[], float]) -> None:
        """Use ``create`` or ``open``."""
        self._access = access
        self._policy = policy
        self._clock = clock

    @classmethod
    def create(
        cls,
        files: LedgerFiles,
        *,
        dataset: str,
        policy: Policy | None,
        durable: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Start a ledger for people on whom nothing was spent yet.

        A crash on the way leaves files that must be deleted by hand: this never overwrites one, and ``open``
        refuses an incomplete set.

        Args:
            files: three files that do not exist.
            dataset: identity of the people's data, such as a digest; stays when a new run begins.
            policy: what charges are checked against; None for runs without privacy, which promise nothing.
            durable: false trades safety from power loss for speed; for simulations.
            clock: seconds since 1970.

        Raises:
            PrivacyError: a file exists or cannot be written.
        """
        if not is_name(dataset):
            raise PrivacyError(f"dataset={dataset!r}: expected a short printable identity, such as a digest")
        check_absent(files)
        key = create_key(files.key, durable=durable)
        first = first_entry(dataset=dataset, policy=_digest(policy), at=int(clock()), key=key)
        create_store(files.ledger, first, durable=durable)
        write_witness(Witness(first.sequence, first.mac), files.witness, key=key, durable=durable)
        return cls.open(files, dataset=dataset, policy=policy, durable=durable, clock=clock)

    @classmethod
    def open(
        cls,
        files: LedgerFiles,
        *,
        dataset: str | None,
        policy: Policy | None,
        durable: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Go on with an existing ledger, after checking all of it. ``dataset`` None takes whatever it is of.

        Raises:
            PrivacyError: a file is missing, unreadable or altered, the ledger was rolled back, or is of another data.
        """
        ledger = cls(LedgerAccess(files, durable=durable), policy=policy, clock=clock)
        if dataset is not None and ledger.dataset != dataset:
            raise PrivacyError(f"{files.ledger}: belongs to another data set; expected {dataset!r}")
        return ledger

    @property
    def files(self) -> LedgerFiles:
        """Where it lies."""
        return self._access.files

    def session(self) -> AbstractContextManager[None]:
        """Keep the file open for what one thread does inside, such as all of one round; every check stays as it is."""
        return self._access.session()

    @property
    def dataset(self) -> str:
        """Identity of the data set; reads the ledger."""
        with self._access.reading() as book:
            return book.head.dataset

    def charge(self, round_id: str, spending: Steps, *, plan: PrivacyPlan, kind: Kind = Kind.TRAINING) -> Charge:
        """Book steps of a plan, before taking them. On return the charge and its witness are on disk.

        Args:
            round_id: RUN/ROUND, one for each charge; metrics need names of their own, such as RUN/metrics/ROUND.
            spending: ``plan.training(n)``, ``plan.metrics_release()`` or ``plan.statistics_release()``.
            plan: whose promise this is part of.
            kind: what is paid for.

        Returns:
            ``ALREADY_CHARGED`` when this round was booked before, as after a crash: nothing is added.
            Then the round may be computed anew only if its first result was never sent.

        Raises:
            PrivacyError: the policy or plan does not cover it, the round was booked otherwise or settled,
                or the ledger is not intact. Nothing is booked, except when only the witness could not be
                written: then the charge stands, and asking again mends it.
        """
        request = checked_request(round_id, spending, plan=plan, kind=kind, policy=self._policy)
        with self._access.writing() as writer:
            if known := writer.book.rounds.get(round_id):
                check_repeat(known, request)
                return Charge.ALREADY_CHARGED
            head, now = writer.book.head, self._now()
            check_limits(writer.book, request, plan=plan, policy=self._policy, at=max(now, head.at))
            writer.append(reservation(request, plan=plan, policy=self._policy, after=head), at=now)
        return Charge.CHARGED

    def release(self, round_id: str) -> str:
        """Note that the round's result was sent; before sending it. Repeating it changes nothing.

        Returns:
            Digest of the line that notes it, 64 hex digits: goes along with the result, for the server to countersign.

        Raises:
            PrivacyError: the round was never charged or was settled, or the ledger is not intact.
        """
        with self._access.writing() as writer:
            known = writer.book.rounds.get(round_id)
            if known is None:
                raise PrivacyError(f"round {round_id!r}: never charged; expected charge before release")
            if known.state == State.SETTLED:
                raise PrivacyError(f"round {round_id!r}: settled; its result must not be sent")
            if known.state != State.RELEASED:
                note = known.reserved._replace(state=State.RELEASED.value, steps=0, policy=_digest(self._policy))
                writer.append(note, at=self._now())
        return writer.book.rounds[round_id].head  # a released round stays as it is

    def is_released(self, round_id: str) -> bool:
        """Whether the round's result was sent.

        Raises:
            PrivacyError: the ledger is not intact.
        """
        with self._access.reading() as book:
            return round_id in book.rounds and book.rounds[round_id].state == State.RELEASED

    def settle(self, sequence: int, *, steps: int, reason: str) -> None:
        """Give back what a charge did not use: an explicit decision of the ledger's owner, on record with a reason.

        Afterwards nothing can be computed or sent on that charge. Caps by round and day still count it.

        Args:
            sequence: of a reserved line whose result never left this machine.
            steps: that were taken all the same, >= 0, fewer than were charged.
            reason: 1 to 200 printable characters.

        Raises:
            PrivacyError: any of these does not hold, or the ledger is not intact.
        """
        if not is_name(reason):
            raise PrivacyError(f"reason={reason!r}: expected 1 to 200 printable characters")
        with self._access.writing() as writer:
            known = writer.book.round_at(sequence)
            if known is None or known.state != State.RESERVED:
                what = known.state if known else "not a charge"
                raise PrivacyError(f"entry {sequence!r}: {what}; expected one that is reserved and was never released")
            if type(steps) is not int or not 0 <= steps < known.reserved.steps:
                raise PrivacyError(
                    f"steps={steps!r}: expected 0 to {known.reserved.steps - 1}, fewer than were charged"
                )
            note = known.reserved._replace(state=State.SETTLED.value, steps=steps, reason=reason)
            writer.append(note._replace(policy=_digest(self._policy)), at=self._now())

    def spent(self) -> float:
        """Epsilon of everything charged, at the policy's delta; without a policy infinity, or 0 for nothing.

        Raises:
            PrivacyError: the ledger is not intact.
        """
        spendings = self.spendings()
        if self._policy is None:
            return float("inf") if spendings else 0.0
        return spent_epsilon(spendings, self._policy.max_delta)

    def spendings(self) -> tuple[Steps, ...]:
        """Everything charged, settled charges at their settled steps: one item a mechanism.

        Raises:
            PrivacyError: the ledger is not intact.
        """
        with self._access.reading() as book:
            return book.spendings()

    def entries(self) -> tuple[Entry, ...]:
        """All lines, oldest first, every one verified anew.

        Raises:
            PrivacyError: the ledger is not intact.
        """
        return self._access.entries()

    def head(self) -> str:
        """Digest of the newest line, 64 hex digits: what the server countersigns.

        Raises:
            PrivacyError: the ledger is not intact.
        """
        with self._access.reading() as book:
            return book.head.mac

    def accept_countersigned(self, head: str, signature: str, *, server_key: str) -> None:
        """Keep the server's signature of a line of this ledger; an older one than is kept changes nothing.

        Args:
            head: the line's digest, 64 hex digits.
            signature: of its 32 bytes, for ``Purpose.LEDGER_HEAD``, 128 hex digits.
            server_key: the pinned public key, 64 hex digits; the policy's own when there is a policy.

        Raises:
            PrivacyError: another key, a signature that does not fit, or a line that this ledger lost.
        """
        if self._policy is not None and server_key != self._policy.server_key:
            raise PrivacyError(f"policy server_key: {server_key!r}, allowed {self._policy.server_key!r}")
        message = bytes.fromhex(head) if isinstance(head, str) and re.fullmatch("[0-9a-f]{64}", head) else None
        if message is None or not is_signed(message, signature, public=server_key, purpose=Purpose.LEDGER_HEAD):
            raise PrivacyError(f"ledger head {head!r}: expected the server's signature of it")
        self._access.keep(Countersigned(head, signature))

    def countersigned(self) -> Countersigned | None:
        """The newest head and signature that ``accept_countersigned`` kept; None before the first.

        Raises:
            PrivacyError: the ledger is not intact.
        """
        return self._access.countersigned()

    def backup(self, target: Path) -> None:
        """Copy the ledger to a new file, and verify the copy. Key and witness are not part of it.

        A plain copy of the file may lack what SQLite still holds in its write-ahead log; this does not.

        Raises:
            PrivacyError: the target exists or cannot be written, or the ledger is not intact.
        """
        self._access.backup(target)

    def _now(self) -> int:
        return int(self._clock())


def _digest(policy: Policy | None) -> str:
    return policy.digest() if policy else ""
