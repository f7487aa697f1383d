"""One line of the ledger, and the chain that holds the lines together.

Each line carries a keyed digest (HMAC-SHA256) over itself and the digest of the line before, so that
without the key nobody can change, move, insert or forge a line unseen.
"""

import hmac
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps
from fedrec.privacy.plan import UNIT

START = "0" * 64
_PURPOSE = b"fedrec ledger entry 1\n"  # a digest made for one thing cannot be shown as another


class Kind(StrEnum):
    """What a charge pays for."""

    TRAINING = "training"
    METRICS = "metrics"
    STATISTICS = "statistics"


class State(StrEnum):
    """What a line says. Only reserved and settled lines bear on what is spent."""

    OPENED = "opened"
    RESERVED = "reserved"
    RELEASED = "released"
    SETTLED = "settled"


class Entry(NamedTuple):
    """One line: mechanism events, not epsilons, so that a better accountant can be run over them later.

    Attributes:
        sequence: 1, 2, 3, ...
        at: seconds since 1970, never before the line above.
        dataset, unit: whose privacy; the same on every line.
        kind, plan, round_id: what the charge was for; empty on the first line.
        policy: digest of the policy in force; empty without one.
        state: see ``State``.
        noise_multiplier, sampling_rate, steps, batch_cap, max_people: the mechanism and how often it ran;
            0 steps on a released line, the steps that remain spent on a settled one.
        clip_norm, delta, accountant: of the plan.
        reason: why a line was settled.
        previous, mac: digest of the line above, and of this one.
    """

    sequence: int
    at: int
    dataset: str
    unit: str
    kind: str
    plan: str
    policy: str
    round_id: str
    state: str
    noise_multiplier: float
    sampling_rate: float
    steps: int
    batch_cap: int | None
    max_people: int | None
    clip_norm: float
    delta: float | None
    accountant: str
    reason: str
    previous: str
    mac: str

    @property
    def spending(self) -> Steps:
        """The steps as the accountant takes them."""
        return Steps(self.noise_multiplier, self.sampling_rate, self.steps, self.batch_cap, self.max_people)

    @property
    def run(self) -> str:
        """The part of ``round_id`` before the first slash."""
        return self.round_id.partition("/")[0]


def first_entry(*, dataset: str, policy: str, at: int, key: bytes) -> Entry:
    """The line that opens a ledger; it spends nothing."""
    nothing = ("", State.OPENED.value, 0.0, 0.0, 0, None, None, 0.0, None, "", "")
    return _sealed(Entry(1, at, dataset, UNIT, "", "", policy, *nothing, START, ""), key=key)


def next_entry(draft: Entry, *, after: Entry, at: int, key: bytes) -> Entry:
    """``draft`` with its place in the chain, time and digest; ``at`` never goes back."""
    placed = draft._replace(sequence=after.sequence + 1, at=max(at, after.at), previous=after.mac)
    return _sealed(placed, key=key)


def verified(rows: Iterable[tuple[Any, ...]], *, after: Entry | None, key: bytes) -> Iterator[Entry]:
    """Yield the lines that follow ``after``, each checked against the one before.

    Raises:
        PrivacyError: a line is not as it was written, or the key is another ledger's.
    """
    for row in rows:
        entry = Entry(*row)
        number = after.sequence + 1 if after else 1
        if entry.sequence != number or not _follows(entry, after) or not _is_sealed(entry, key=key):
            raise PrivacyError(f"entry {number} was altered, or the key is another ledger's; restore a backup")
        yield entry
        after = entry


def _follows(entry: Entry, before: Entry | None) -> bool:
    if before is None:
        return entry.previous == START and entry.state == State.OPENED
    return entry.previous == before.mac and entry.state != State.OPENED


def _sealed(entry: Entry, *, key: bytes) -> Entry:
    return entry._replace(mac=_mac(entry, key=key))


def _is_sealed(entry: Entry, *, key: bytes) -> bool:
    try:
        return hmac.compare_digest(_mac(entry, key=key), str(entry.mac))
    except (TypeError, ValueError):  # a column that is no text and no finite number
        return False


def _mac(entry: Entry, *, key: bytes) -> str:
    text = json.dumps(entry[:-1], separators=(",", ":"), allow_nan=False)
    return hmac.digest(key, _PURPOSE + text.encode(), "sha256").hex()
