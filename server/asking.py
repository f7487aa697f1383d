"""Send one instruction to some clients and take in the replies that count, until there are enough."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from flwr.app import Message
from flwr.serverapp import Grid

from fedrec.schema import AdapterSchema, flatten
from fedrec.signed import arrays_digest
from fedrec.wire import Instruction, RefusalCode, instruction_to_record, payload_bytes
from fedrec.wire_arrays import array_record
from server.admission import Admitted, Quarantined
from server.averaging import Sum
from server.roster import Members
from server.signer import Signer

Verdict = Callable[[Message, Collection[int]], Admitted | Quarantined]
"""Judges a message, given the nodes whose reply was admitted before it."""

NOT_WAITED_FOR = "not-waited-for"


class Tally:
    """What the replies to one instruction came to, so far."""

    def __init__(self, total: Sum) -> None:
        self.total = total
        self.admitted = 0
        self.bytes_up = 0
        self.reasons: Counter[str] = Counter()
        self.ledger_heads: dict[int, str] = {}
        self.spent: set[int] = set()


class Cohort(NamedTuple):
    """The clients of one round, and how to reach them.

    Attributes:
        grid: Flower's way to the clients.
        asked: their nodes, in order, and under which key each must sign.
        signer: signs what each client is asked, and the newest end of its ledger, which goes back to it.
        timeout_s: how long to wait for replies; None waits for all.
        wanted: admitted replies after which nobody else is waited for.
    """

    grid: Grid
    asked: Members
    signer: Signer
    timeout_s: float | None
    wanted: int


def ask(
    cohort: Cohort,
    instruction: Instruction,
    *,
    message_type: str,
    verdict: Verdict,
    schema: AdapterSchema,
    total: Sum,
    ledger_heads: Mapping[int, str],
) -> Tally:
    """Send ``instruction`` to a cohort and sum what is admitted, until as many as are wanted are.

    Args:
        cohort: whom.
        instruction: what all are asked; each gets its own receipt and signature.
        message_type: Flower's word for what to do with it.
        verdict: judges one reply.
        schema: of the arrays in an admitted reply.
        total: an empty sum of such arrays, flat.
        ledger_heads: by node, the newest end of its ledger that the server has seen.
    """
    tally, answered = Tally(total), set[int]()
    messages = _messages(cohort, instruction, message_type=message_type, ledger_heads=ledger_heads)
    for message in cohort.grid.send_and_receive(messages, timeout=cohort.timeout_s):
        # A bad reply takes no turn from the good one: whoever sent it, it may not have been the client it names.
        judged, sender = verdict(message, tally.ledger_heads.keys()), message.metadata.src_node_id
        if sender in cohort.asked:
            answered.add(sender)
        if message.has_content():
            tally.bytes_up += payload_bytes(message.content)
        if isinstance(judged, Admitted):
            member = cohort.asked[sender]
            tally.total.add(flatten(judged.arrays, schema), weight=member.weight if member else 1.0)
            tally.admitted += 1
            tally.ledger_heads[sender] = judged.ledger_head
            if tally.admitted == cohort.wanted and len(answered) < len(cohort.asked):
                break
        else:
            tally.reasons[judged.reason] += 1
            if judged.reason == RefusalCode.BUDGET:
                tally.spent.add(sender)
    if missing := len(cohort.asked) - len(answered):
        tally.reasons["no-reply" if tally.admitted < cohort.wanted else NOT_WAITED_FOR] = missing
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
