"""Is this instruction the server's, for this client, for this purpose, and still in force?

Checked before the ledger or anyone's data is touched. What does not have the form of an instruction is ``E_SCHEMA``;
what has the form and fails here is ``E_PLAN``, whichever check it was: nobody but the client learns more.
"""

import time
from typing import NamedTuple

from fedrec.signed import LIFETIME_S, SKEW_S, Clock, is_signed_by
from fedrec.wire import Instruction, Refusal, RefusalCode


class Desk(NamedTuple):
    """Where instructions arrive.

    Attributes:
        node_id: Flower's number of this client's node.
        clock: Unix time, s.
    """

    node_id: int
    clock: Clock = time.time


def check_signed(instruction: Instruction, desk: Desk, *, kind: str, server_key: str) -> None:
    """Refuse what the pinned server did not ask of this client, as ``kind``, for now.

    An instruction from further ahead than a server signs is refused too: then this client's clock is behind, and it
    could not tell an expired one.

    Raises:
        Refusal: ``E_PLAN``.
    """
    address = instruction.address
    if address is None or not is_signed_by(server_key, instruction):
        raise Refusal(RefusalCode.PLAN, "the instruction is not signed by the pinned server")
    if address.recipient != desk.node_id:
        raise Refusal(RefusalCode.PLAN, "the instruction is signed for another client")
    if address.kind != kind:
        raise Refusal(RefusalCode.PLAN, f"the instruction is signed to {address.kind}, and came to {kind}")
    left_s = address.expires_at - desk.clock()
    if left_s < -SKEW_S:
        raise Refusal(RefusalCode.PLAN, f"the instruction has expired {-left_s:.0f} s ago; is this clock right?")
    if left_s > LIFETIME_S + SKEW_S:
        raise Refusal(RefusalCode.PLAN, f"the instruction expires only in {left_s:.0f} s; is this clock right?")
