"""Who may take part, and under which key. The operator decides it; the transport only says who is connected."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


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
