"""What the clients' own people say about a round: the mean of their noised metrics.

It is noisy and comes from the people who trained, so it never chooses which round is published: the panel does that,
at no cost in privacy.
"""

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from fedrec.schema import AdapterSchema, ArraySpec
from fedrec.wire import Instruction
from fedrec.wire_metrics import measures_from_record
from server.admission import CROWD, TAIL, Admitted, Quarantined, opened
from server.asking import Tally
from server.roster import Members


@dataclass(frozen=True)
class Measuring:
    """What clients are asked to measure. Public constants.

    Attributes:
        names: the agreed metrics, at least one.
        every: rounds from one release to the next, >= 1.
        noise_std: standard deviation of the noise in each number of one client's release, >= 0; 0 without privacy.
    """

    names: tuple[str, ...]
    every: int
    noise_std: float

    @property
    def schema(self) -> AdapterSchema:
        """The numbers of one reply, as arrays of shape ()."""
        return tuple(ArraySpec(name, ()) for name in self.names)

    def is_due(self, round_index: int) -> bool:
        """Whether clients measure after this round."""
        return round_index % self.every == 0


def admit_measures(
    message: Message,
    *,
    asked: Members,
    seen: Collection[int],
    instruction: Instruction,
    measuring: Measuring,
) -> Admitted | Quarantined:
    """Judge one reply to an instruction to measure.

    An honest number is a sum over at most ``CROWD`` times the expected people, each in [0, 1], divided by the
    expected people, plus normal noise: below 0 or above ``CROWD`` by more than sqrt(2 x) deviations with
    probability at most exp(-x) each.

    Args:
        message: the reply, whatever it holds.
        asked: nodes that were asked, and under which key each must sign.
        seen: nodes whose reply was admitted already.
        instruction: what they were asked; its header must come back unchanged.
        measuring: what was agreed on.

    Returns:
        The numbers by name, or one word for why they do not count.
    """
    measures = opened(
        message,
        asked=asked,
        seen=seen,
        instruction=instruction,
        read=lambda record: measures_from_record(record, names=measuring.names),
    )
    if isinstance(measures, Quarantined):
        return measures
    noise = math.sqrt(2 * TAIL) * measuring.noise_std
    if any(not -noise <= value <= CROWD + noise for value in measures.values.values()):
        return Quarantined("out-of-range")
    arrays = {name: np.array(value) for name, value in measures.values.items()}
    return Admitted(message.metadata.src_node_id, arrays, measures.ledger_head)


def mean_measures(tally: Tally, measuring: Measuring) -> dict[str, float]:
    """The clients' uniform mean under the names of ``events.jsonl``, the deviation of its noise, and how many replied.

    ``private_`` says whose metric it is: the clients' people, as against the public panel. No reply, no measure.
    """
    if not tally.admitted:
        return {}
    means = tally.total.mean().tolist()
    return {f"private_{name}": value for name, value in zip(measuring.names, means, strict=True)} | {
        "private_noise_std": measuring.noise_std / math.sqrt(tally.admitted),
        "private_replies": float(tally.admitted),
    }


def set_aside(tally: Tally) -> Counter[str]:
    """Why replies did not count, in words that tell them from those of the training round."""
    return Counter({f"metrics:{reason}": count for reason, count in tally.reasons.items()})
