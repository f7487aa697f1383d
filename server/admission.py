"""Every reply is judged alone, before anything is averaged. A bad one is set aside and counted; the run goes on."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from flwr.app import Message, RecordDict

from fedrec.errors import ConfigError, WireError
from fedrec.privacy.trust import LOCAL
from fedrec.schema import AdapterSchema, Arrays
from fedrec.signed import is_reply_signed_by
from fedrec.wire import Instruction, Update, refusal_from_error, update_from_record
from fedrec.wire_arrays import NotFiniteError
from fedrec.wire_metrics import Measures
from fedrec.wire_statistics import Statistics
from server.roster import Members

Answer = TypeVar("Answer", bound=Update | Measures | Statistics)

TAIL = math.log(1e9)  # an honest private client falls outside the bounds less than once in 10^9 replies, each side
CROWD = 4  # how many times the expected number of people may turn up in one step


class PlanNumbers(Protocol):
    """The public numbers of a privacy plan that bound an honest update."""

    @property
    def clip_norm(self) -> float: ...
    @property
    def noise_multiplier(self) -> float: ...
    @property
    def trust(self) -> str: ...
    @property
    def sampling_rate(self) -> float: ...
    @property
    def normaliser(self) -> float: ...
    @property
    def local_steps(self) -> int: ...


class Reader(Protocol):
    """Unpacks a reply of arrays; raises ``WireError`` for anything else."""

    def __call__(self, record: RecordDict, *, schema: AdapterSchema) -> Update | Statistics: ...


@dataclass(frozen=True)
class NormBounds:
    """Range of the L2 norm of an honest update; ``floor`` is 0 without noise."""

    floor: float
    ceiling: float


@dataclass(frozen=True, eq=False)
class Admitted:
    """A reply that counts: its sender, its arrays in the schema's order, and the end of its ledger."""

    sender: int
    arrays: Arrays
    ledger_head: str


@dataclass(frozen=True)
class Quarantined:
    """A reply that does not count. ``reason`` is one of a fixed set of words, never text from the client."""

    reason: str


def norm_bounds(plan: PlanNumbers, parameters: int) -> NormBounds:
    """Bound the norm of an honest client's update from public numbers alone, under local trust.

    Under another trust there are no bounds: which replies count is published, and the guarantee is of the sum alone,
    so nothing may follow from the norm of a single update. A secure sum would not show it either.

    One local step is ``(sum of clipped + sigma C N) / n`` with N standard normal in P dimensions, n the normaliser,
    and an update is the sum of S such steps.

    Ceiling. At most ``CROWD`` times the expected number of people E = n / q enter a step, each of norm <= C, so the
    signal's norm is <= S * CROWD * C / q. The noise is normal with standard deviation s = sqrt(S) sigma C / n, and
    P(chi2_P >= P + 2 sqrt(P x) + 2 x) <= exp(-x). The triangle inequality adds the two.

    Floor. Given everything before the last step's noise, the update is a fixed vector plus normal noise of deviation
    s1 = sigma C / n. The squared norm of that is noncentral chi2, which is stochastically larger than the central
    one, whatever the fixed vector; and P(chi2_P <= P - 2 sqrt(P x)) <= exp(-x). So a shorter update has left out
    noise, except with probability exp(-x). With few parameters (P <= 4 x) the bound says nothing and the floor is 0.

    Args:
        plan: public numbers of the privacy plan.
        parameters: P, >= 1.

    Raises:
        ConfigError: ``parameters`` is not positive, or the normaliser is not.

    Source: Laurent and Massart 2000, Lemma 1, https://doi.org/10.1214/aos/1015957395
    """
    if parameters < 1 or plan.normaliser <= 0:
        raise ConfigError(f"parameters={parameters}, normaliser={plan.normaliser}: expected both > 0")
    if plan.trust != LOCAL:
        return NormBounds(0.0, math.inf)
    one_step = plan.noise_multiplier * plan.clip_norm / plan.normaliser
    signal = plan.local_steps * CROWD * plan.clip_norm / plan.sampling_rate
    spread = math.sqrt(parameters * TAIL)
    longest_noise = math.sqrt(plan.local_steps) * one_step * math.sqrt(parameters + 2 * spread + 2 * TAIL)
    shortest_noise = one_step * math.sqrt(max(0.0, parameters - 2 * spread))
    return NormBounds(shortest_noise, signal + longest_noise)


def admit(
    message: Message,
    *,
    asked: Members,
    seen: Collection[int],
    instruction: Instruction,
    schema: AdapterSchema,
    bounds: NormBounds,
    read: Reader = update_from_record,
) -> Admitted | Quarantined:
    """Judge one reply.

    Args:
        message: the reply, whatever it holds.
        asked: nodes asked in this round, and under which key each must sign.
        seen: nodes whose reply was admitted already in this round.
        instruction: what they were asked; its header must come back unchanged.
        schema: names and shapes of the arrays in it.
        bounds: range of an honest one's norm.
        read: unpacks it.

    Returns:
        The arrays, or one word for why they do not count.
    """
    update = opened(
        message,
        asked=asked,
        seen=seen,
        instruction=instruction,
        read=lambda record: read(record, schema=schema),
    )
    if isinstance(update, Quarantined):
        return update
    norm = math.sqrt(sum(float(np.square(values, dtype=np.float64).sum()) for values in update.arrays.values()))
    if norm > bounds.ceiling:
        return Quarantined("too-long")
    if norm < bounds.floor:
        return Quarantined("too-short")
    return Admitted(message.metadata.src_node_id, update.arrays, update.ledger_head)


def opened(
    message: Message,
    *,
    asked: Members,
    seen: Collection[int],
    instruction: Instruction,
    read: Callable[[RecordDict], Answer],
) -> Answer | Quarantined:
    """Return what ``read`` finds in a reply that was asked for, came once, echoes the instruction and is signed."""
    sender = message.metadata.src_node_id
    if sender not in asked:
        return Quarantined("not-asked")
    if sender in seen:
        return Quarantined("twice")
    if message.has_error():
        code = refusal_from_error(message.error)
        return Quarantined(code.value if code else "failed")
    if not message.has_content():
        return Quarantined("malformed")
    try:
        answer = read(message.content)
    except NotFiniteError:
        return Quarantined("not-finite")
    except WireError:
        return Quarantined("malformed")
    echo = (answer.run_id, answer.round_index, answer.base_digest, answer.agreement_digest)
    if echo != (instruction.run_id, instruction.round_index, instruction.base_digest, instruction.agreement_digest):
        return Quarantined("other-round")
    member = asked[sender]
    if member is not None and not is_reply_signed_by(member.reply_key, answer, sender=sender):
        return Quarantined("not-signed")
    return answer
