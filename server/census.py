"""What clients count of their people before the first round, once: who is admitted, and what the replies come to.

The counts are in the checkpoints from the first on. Should the process die before that, clients are asked again and
send the same replies; whatever the server made of the first ones went with it.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from flwr.app import Message

from fedrec.privacy.plan import PrivacyPlan
from fedrec.schema import AdapterSchema, parameters_of
from fedrec.wire import Instruction
from fedrec.wire_statistics import statistics_from_record
from server.admission import Admitted, NormBounds, Quarantined, admit, norm_bounds
from server.asking import Tally
from server.averaging import Averaging, Sum
from server.roster import Members


@dataclass(frozen=True)
class Census:
    """What clients are asked to count. Public constants.

    Attributes:
        schema: names and shapes of the counts in one reply.
        bounds: range of the norm of an honest reply.
        expected_people: what each client divides its sums by.
        client_noise_std: of the noise in each number of one reply.
        server_noise_std: of what the server adds to the sum of all replies, in units of a reply; 0 unless it is
            trusted to.
    """

    schema: AdapterSchema
    bounds: NormBounds
    expected_people: int
    client_noise_std: float
    server_noise_std: float

    def start(self) -> Sum:
        """Return the sum of no replies, with noise in it where the server adds it."""
        return Averaging(noise_std=self.server_noise_std).start(parameters_of(self.schema))


@dataclass(frozen=True, eq=False)
class Counts:
    """What the replies came to; private as it is, so whatever is made of it costs nothing.

    Attributes:
        totals: (S,) float64, noised sums over everybody's people, of blocks in the order of ``Census.schema``.
        noise_std: of the noise in each of them.
        replies: clients that they come from.
    """

    totals: np.ndarray
    noise_std: float
    replies: int


class _Release(NamedTuple):
    """The numbers of a release as those of a training step in which everybody takes part."""

    noise_multiplier: float
    normaliser: float
    trust: str
    clip_norm: float = 1.0
    sampling_rate: float = 1.0
    local_steps: int = 1


def census_of(plan: PrivacyPlan, schema: AdapterSchema) -> Census:
    """Return what a plan's release of statistics means for a server.

    Raises:
        PrivacyError: the plan has none.
    """
    noise, people = plan.statistics_release().noise_multiplier, plan.expected_people
    return Census(
        schema,
        bounds=norm_bounds(_Release(noise, people, plan.trust), parameters_of(schema)),
        expected_people=people,
        client_noise_std=plan.client_share(noise) / people,
        server_noise_std=plan.server_share(noise) / people,
    )


def admit_counts(
    message: Message, *, asked: Members, seen: Collection[int], instruction: Instruction, census: Census
) -> Admitted | Quarantined:
    """Judge one reply to an instruction to count as ``admit`` does: a sum of rows at most 1 long, and noise."""
    return admit(
        message,
        asked=asked,
        seen=seen,
        instruction=instruction,
        schema=census.schema,
        bounds=census.bounds,
        read=statistics_from_record,
    )


def counts_of(tally: Tally, census: Census) -> Counts:
    """Sum the replies, at least one, over all people."""
    replies, people = tally.admitted, census.expected_people
    variance = replies * census.client_noise_std**2 + census.server_noise_std**2
    return Counts(tally.total.mean() * replies * people, people * math.sqrt(variance), replies)
