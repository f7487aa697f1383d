"""Send one instruction to some clients and sum the replies that count, each with the same weight."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fedrec.schema import AdapterSchema, flatten, parameters_of
from fedrec.signed import arrays_digest
from fedrec.wire import Instruction, instruction_to_record, payload_bytes
from fedrec.wire_arrays import array_record
from server.admission import Admitted, Quarantined
from server.roster import Members
from server.signer import Signer

Verdict = Callable[[Message, Collection[int]], Admitted | Quarantined]
"""Judges a message, given the nodes whose reply was judged before it."""


class Tally:
    """The running sum of the replies to one instruction; one reply at a time is in memory."""

    def __init__(self, width: int) -> None:
        self.total = np.zeros(width)
        self.admitted = 0
        self.bytes_up = 0
        self.reasons: Counter[str] = Counter()
        self.ledger_heads: dict[int, str] = {}


class Cohort(NamedTuple):
    """The clients of one round, and how to reach them.

    Attributes:
        grid: Flower's way to the clients.
        asked: their nodes, in order, and under which key each must sign.
        signer: signs what each client is asked, and the newest end of its ledger, which goes back to it.
        timeout_s: how long to wait for replies; None waits for all.
    """

    grid: Grid
    asked: Members
    signer: Signer
    timeout_s: float | None


def ask(
    cohort: Cohort,
    instruction: Instruction,
    *,
    message_type: str,
    verdict: Verdict,
    schema: AdapterSchema,
    ledger_heads: Mapping[int, str],
) -> Tally:
    """Send ``instruction`` to a cohort and sum what is admitted.

    Args:
        cohort: whom.
        instruction: what all are asked; each gets its own receipt and signature.
        message_type: Flower's word for what to do with it.
        verdict: judges one reply.
        schema: of the arrays in an admitted reply.
        ledger_heads: by node, the newest end of its ledger that the server has seen.
    """
    tally = Tally(parameters_of(schema))
    expected, seen = frozenset(cohort.asked), set[int]()
    messages = _messages(cohort, instruction, message_type=message_type, ledger_heads=ledger_heads)
    for message in cohort.grid.send_and_receive(messages, timeout=cohort.timeout_s):
        judged = verdict(message, seen)
        if message.metadata.src_node_id in expected:
            seen.add(message.metadata.src_node_id)
        if message.has_content():
            tally.bytes_up += payload_bytes(message.content)
        if isinstance(judged, Admitted):
            tally.total += flatten(judged.arrays, schema)
            tally.admitted += 1
            tally.ledger_heads[judged.sender] = judged.ledger_head
        else:
            tally.reasons[judged.reason] += 1
    if len(seen) < len(expected):
        tally.reasons["no-reply"] = len(expected) - len(seen)
    return tally


def _messages(
    cohort: Cohort, instruction: Instruction, *, message_type: str, ledger_heads: Mapping[int, str]
) -> Iterator[Message]:
    """One message for each node, signed for it alone; they share the encoded arrays, which no client can change."""
    encoded, adapter_digest = array_record(instruction.adapter), arrays_digest(instruction.adapter)
    for node_id in cohort.asked:
        own = cohort.signer.addressed(
            instruction,
            kind=message_type,
            recipient=node_id,
            head=ledger_heads.get(node_id),
            adapter_digest=adapter_digest,
        )
        content = instruction_to_record(own, encoded=encoded)
        yield Message(content, node_id, message_type, group_id=str(instruction.round_index))
