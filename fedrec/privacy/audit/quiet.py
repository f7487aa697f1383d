"""Clients whose people have nothing to contribute: all that leaves is noise, and who is sampled costs no model run.

A person with a single event has nothing to predict, so their gradient is zero, yet their coin is tossed, the
step is charged and the noise is drawn as for anyone.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from fedrec.data.histories import Histories
from fedrec.privacy.audit.checks import Check, Noise, noise_scale
from fedrec.privacy.audit.engine import Engine
from fedrec.privacy.audit.tap import Step, Tap
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.trust import LOCAL
from fedrec.schema import parameters_of

_WIDTH = 1024  # numbers released in a step, at least
_STEPS_IN_A_ROUND = 64
_BATCHES = 30
_CROWD, _CROWD_VARIANCE = 200, 40.0  # people, and variance of their batch's size, at least
_ROW_ELEMENTS = 5e6
_MOST_PEOPLE = 5000
_FEWEST_CLIENTS, _MOST_COINS, _CERTAIN = 2, 400, 1e-10


@dataclass(frozen=True)
class Quiet:
    """What a quiet client did.

    Attributes:
        steps: as its mechanism saw them.
        charged: steps that its ledger booked.
    """

    steps: tuple[Step, ...]
    charged: int


def quiet_client(engine: Engine, people: int, *, plan: PrivacyPlan, rounds: int) -> Quiet:
    """Run the first rounds of ``plan`` at a new client."""
    tap = Tap(width=_WIDTH)
    client = engine.client(Histories.from_lists([[0]] * people), tap, plan=plan)
    for round_index in range(1, rounds + 1):
        client.answer(round_index)
    return Quiet(tuple(tap.steps), client.charged_steps())


def lonely_clients(engine: Engine) -> list[Quiet]:
    """Clients of one person: enough coins that some batch is empty, unless q is close to 1."""
    plan = _bundled(engine.plan)
    rate = plan.sampling_rate
    coins = _MOST_COINS if rate == 1.0 else min(_MOST_COINS, math.ceil(math.log(_CERTAIN) / math.log(rate)))
    coins = plan.local_steps if rate == 1.0 else coins
    rounds = min(plan.rounds, math.ceil(coins / plan.local_steps))
    clients = max(_FEWEST_CLIENTS, math.ceil(coins / (rounds * plan.local_steps)))
    return [quiet_client(engine, 1, plan=plan, rounds=rounds) for _ in range(clients)]


def crowded_clients(engine: Engine) -> list[Quiet]:
    """Clients of so many people that the sizes of at least thirty batches tell coins from anything else."""
    plan = _bundled(engine.plan)
    rate = plan.sampling_rate
    people = max(_CROWD, math.ceil(_CROWD_VARIANCE / (rate * (1.0 - rate)))) if rate < 1.0 else _CROWD
    width = max(_WIDTH, parameters_of(engine.schema))
    people = min(people, max(_CROWD, int(_ROW_ELEMENTS / (rate * width))))
    people = min(people, plan.batch_cap or people, plan.max_people or people)  # a cap that binds is no coin
    rounds = min(plan.rounds, math.ceil(_BATCHES / plan.local_steps))
    clients = math.ceil(_BATCHES / (rounds * plan.local_steps))
    return [quiet_client(engine, people, plan=plan, rounds=rounds) for _ in range(clients)]


def capped_batches(engine: Engine) -> Check:
    """With as many people as the plan allows, no batch is larger than its cap. For plans that have one."""
    plan = _bundled(engine.plan)
    people = min(plan.max_people or 1, _MOST_PEOPLE)
    steps = quiet_client(engine, people, plan=plan, rounds=1).steps
    largest = max(len(step.chosen) for step in steps)
    return Check(
        "no batch exceeds its cap",
        largest <= (plan.batch_cap or largest),
        f"largest of {len(steps)} batches from {people} people is {largest}, expected at most {plan.batch_cap}",
    )


def same_call_twice(engine: Engine) -> list[Quiet]:
    """Two clients that agree in everything, asked the same first round under the plan as it is."""
    return [quiet_client(engine, 1, plan=engine.plan, rounds=1) for _ in range(2)]


def masks(clients: list[Quiet]) -> np.ndarray:
    """Who took part in each step, (S, N) bool; client after client."""
    steps = [step for client in clients for step in client.steps]
    taken = np.zeros((len(steps), steps[0].people), dtype=bool)
    for row, step in zip(taken, steps, strict=True):
        row[step.chosen] = True
    return taken


def noise_of(clients: list[Quiet], plan: PrivacyPlan, *, source: str) -> list[Noise]:
    """The noise of their steps, in units of the planned one."""
    return [noise_in(step, plan, source=f"{source} {i}") for i, client in enumerate(clients) for step in client.steps]


def noise_in(step: Step, plan: PrivacyPlan, *, source: str, added: np.ndarray | float = 0.0) -> Noise:
    """What a step released beyond the known part and ``added``, in units of sigma·C / (q·n)."""
    noise = step.released * plan.normaliser - step.known - added
    return Noise(source, noise / (plan.noise_multiplier * plan.clip_norm))


def empty_batches(clients: list[Quiet], plan: PrivacyPlan) -> Check:
    """A step in which nobody is sampled is noised like any other, and every step is charged."""
    steps = [step for client in clients for step in client.steps]
    charged = sum(client.charged for client in clients)
    name = "an empty batch is noised and charged"
    empty = [noise_in(step, plan, source="empty") for step in steps if len(step.chosen) == 0]
    if charged != len(steps):
        return Check(name, False, f"{charged} steps charged, expected {len(steps)}")
    if not empty:
        return Check(name, True, f"all {len(steps)} steps charged; none was empty at q = {plan.sampling_rate:g}")
    scale = noise_scale(name, empty)
    return Check(name, scale.passed, f"all {len(steps)} steps charged; in {len(empty)} empty ones the {scale.detail}")


def _bundled(plan: PrivacyPlan) -> PrivacyPlan:
    """The same plan with more steps in a round, where that is possible: fewer rounds to ask for."""
    if plan.trust != LOCAL:
        return plan  # a round of which has one step
    most = max(n for n in range(1, min(_STEPS_IN_A_ROUND, plan.steps) + 1) if plan.steps % n == 0)
    return replace(plan, local_steps=max(most, plan.local_steps))
