"""One client's round: sample people, take private steps on the adapter, hand back the noised descent direction.

Nothing here is random but who is sampled and the noise. Which part of a history a person shows depends
on their own history and the step alone: a shared stream of random windows would let one person's
presence shift what everyone else shows, and clipping each person would no longer bound that.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec.data.histories import Histories
from fedrec.model.adapters import load_adapter_arrays, schema_of
from fedrec.model.losses import person_losses
from fedrec.model.ranker import Ranker
from fedrec.model.windows import padded, window_of_step
from fedrec.privacy.gradients import PersonGradients
from fedrec.privacy.mechanism import Mechanism
from fedrec.schema import Arrays, flatten, unflatten

PEOPLE_AT_A_TIME = 64  # bounds memory; the result does not depend on it


@dataclass(frozen=True)
class LocalTraining:
    """How a person's history becomes a loss. Public numbers.

    Attributes:
        mask_last: the item just bought is never the next one.
        negatives: uniform catalogue items that stand for a large catalogue; None for all of it.
        seed: of the negatives, which everyone may know.
    """

    mask_last: bool
    negatives: int | None
    seed: int


def private_direction(
    ranker: Ranker,
    histories: Histories,
    start: Arrays,
    *,
    mechanism: Mechanism,
    steps: int,
    learning_rate: float,
    training: LocalTraining,
) -> Arrays:
    """Take ``steps`` private steps from ``start`` and return their sum, a descent direction.

    Args:
        ranker: with an adapter; its adapter is overwritten.
        histories: one row a person; who has fewer than two events contributes nothing. Sensitive.
        start: the shared adapter.
        mechanism: samples, clips, adds noise, divides by the public normaliser, and counts.
        steps: >= 1; each is charged whether or not anyone is sampled.
        learning_rate: how far the adapter moves between the steps.

    Returns:
        ``-sum of released gradients`` by array name, float32. Private when the mechanism's plan is.
    """
    schema = schema_of(ranker)
    origin = flatten(start, schema)
    direction = np.zeros_like(origin)
    ranker.train()
    with PersonGradients(ranker) as gradients:
        for _ in range(steps):
            load_adapter_arrays(ranker, unflatten(origin + learning_rate * direction, schema))
            step = mechanism.steps_taken
            sampled = mechanism.sample(len(histories))
            chunks = _gradients(ranker, gradients, histories, sampled, step=step, training=training)
            direction -= mechanism.release(chunks, len(origin))
    return unflatten(direction, schema)


def step_losses(
    ranker: Ranker, histories: Histories, people: np.ndarray, *, step: int, training: LocalTraining
) -> Tensor:
    """Return the loss of each of some people in one step, (B,); each has at least two events."""
    windows = padded([window_of_step(histories.of(int(i)), step=step, history=ranker.spec.history) for i in people])
    negatives = public_negatives(ranker.items, training, step=step)
    return person_losses(ranker, windows, mask_last=training.mask_last, negatives=negatives)


def public_negatives(items: int, training: LocalTraining, *, step: int) -> Tensor | None:
    """Draw the step's uniform items of the public catalogue, the same for everyone; None for all items."""
    if training.negatives is None or training.negatives >= items:
        return None
    rng = np.random.default_rng([training.seed, step])
    return torch.from_numpy(rng.choice(items, training.negatives, replace=False))


def _gradients(
    ranker: Ranker,
    gradients: PersonGradients,
    histories: Histories,
    people: np.ndarray,
    *,
    step: int,
    training: LocalTraining,
) -> Iterator[Tensor]:
    """Yield per-person gradients (B, P) in chunks; people without two events get rows of zeros."""
    has_target = histories.lengths[people] > 1
    yield torch.zeros(int((~has_target).sum()), gradients.parameters)
    people = people[has_target]
    for first in range(0, len(people), PEOPLE_AT_A_TIME):
        chunk = people[first : first + PEOPLE_AT_A_TIME]

        def losses(chunk: np.ndarray = chunk) -> Tensor:
            return step_losses(ranker, histories, chunk, step=step, training=training)

        yield gradients.compute(losses, people=len(chunk))
