"""Who may take part, and under which key, and who of them is there.

The operator decides the first; the transport only says who is connected.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flwr.serverapp import Grid

from fedrec.errors import RunError

log = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Registered:
    """One enrolled client.

    Attributes:
        reply_key: Ed25519 public key that its replies are signed with, 64 hex digits.
        weight: its public weight in the mean, > 0; agreed on with the operator, never taken from a reply.
    """

    reply_key: str
    weight: float = 1.0


Members = Mapping[int, Registered | None]
"""By Flower's number of the node, who it is; None in a simulation, where nobody is enrolled and nothing signed."""

Roster = Callable[[], Mapping[int, Registered]]
"""Reads who may take part now, by node; asked before each round, so that a revocation holds from the next one."""


def eligible(online: Iterable[int], roster: Roster | None) -> Members:
    """Return the nodes that are online and may take part; without a roster all that are online."""
    if roster is None:
        return dict.fromkeys(online)
    enrolled = roster()
    return {node: enrolled[node] for node in online if node in enrolled}


def wait_for_clients(
    grid: Grid, needed: int, *, roster: Roster | None = None, timeout_s: float, poll_s: float = 0.1
) -> Members:
    """Return who is there, once they are ``needed`` clients that may take part.

    Raises:
        RunError: they are fewer after ``timeout_s`` seconds.
    """
    deadline, told = time.monotonic() + timeout_s, False
    while len(there := eligible(grid.get_node_ids(), roster)) < needed:
        enrolled = needed if roster is None else len(roster())
        if time.monotonic() >= deadline:
            mend = "start the missing clients" if enrolled >= needed else f"{enrolled} are enrolled: enrol more"
            raise RunError(
                f"{len(there)} of {needed} clients joined within {timeout_s:g} s; {mend}, then go on with --resume"
            )
        if roster and not told:
            log.warning("waiting=clients there=%d enrolled=%d needed=%d", len(there), enrolled, needed)
            told = True
        time.sleep(poll_s)
    return there
