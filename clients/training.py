"""One client's round: sample people, take private steps on what is shared, hand back the noised descent direction.

What is shared is a ranker's adapter or another small head; a ``Learner`` is one of them with one client's people.

Nothing here is random but who is sampled and the noise. Which part of a history a person shows depends
on their own history and the step alone: a shared stream of random windows would let one person's
presence shift what everyone else shows, and clipping each person would no longer bound that.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.measuring import person_metrics
from fedrec.data.histories import Histories
from fedrec.errors import PrivacyError
from fedrec.model.adapters import load_adapter_arrays, schema_of
from fedrec.model.counting import Row, person_statistics
from fedrec.model.losses import person_losses
from fedrec.model.ranker import Ranker
from fedrec.model.statistics import Counting
from fedrec.model.windows import padded, window_of_step
from fedrec.privacy.gradients import PersonGradients
from fedrec.privacy.mechanism import Mechanism
from fedrec.schema import AdapterSchema, Arrays, flatten, unflatten

PEOPLE_AT_A_TIME = 64  # bounds memory; the result does not depend on it
NUMBERS_AT_A_TIME = 1 << 24  # of per-person gradients, 64 MiB; fewer people at a time where the adapter is large


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


class Learner(ABC):
    """What learns, with the people of one client to learn from.

    The people are numbered from 0. What a person yields must follow from their own data, the public arguments and
    nothing else: then clipping each person bounds what anyone can move.
    """

    @property
    @abstractmethod
    def schema(self) -> AdapterSchema:
        """Names and shapes of what is shared. Public."""

    @abstractmethod
    def __len__(self) -> int:
        """How many people there are. Sensitive."""

    @abstractmethod
    def gradients(self, people: np.ndarray, shared: Arrays, *, step: int) -> Generator[Tensor, None, None]:
        """Yield the gradient of each person's loss in chunks (B, P), float, in any order; zeros for who has none.

        Args:
            people: distinct indices, (N,). Sensitive.
            shared: where the gradient is taken.
            step: of the whole run, from 0; public.
        """

    def metrics(self, shared: Arrays, names: Sequence[str]) -> np.ndarray:
        """Measure ``shared`` on each person, (N, k) in [0, 1]. Sensitive.

        Raises:
            PrivacyError: there is nothing to measure.
        """
        raise PrivacyError(f"{type(self).__name__}: measures no {', '.join(names)} on people; agree on no metrics")

    def statistics(self, counting: Counting) -> Iterable[Row]:
        """Yield what each person adds to the counts, a sparse row. Sensitive.

        Raises:
            PrivacyError: there is nothing to count.
        """
        del counting
        raise PrivacyError(f"{type(self).__name__}: counts nothing of people; agree on no statistics")


@dataclass(frozen=True, eq=False)
class RankerLearner(Learner):
    """A ranker's adapter, and histories to predict.

    Attributes:
        ranker: with an adapter, which is overwritten; clients of one process may share it.
        histories: one row a person; who has fewer than two events contributes nothing. Sensitive.
        training: how a history becomes a loss.
    """

    ranker: Ranker
    histories: Histories
    training: LocalTraining

    @property
    def schema(self) -> AdapterSchema:
        return schema_of(self.ranker)

    def __len__(self) -> int:
        return len(self.histories)

    def gradients(self, people: np.ndarray, shared: Arrays, *, step: int) -> Generator[Tensor, None, None]:
        load_adapter_arrays(self.ranker, shared)
        if not self.ranker.training:  # which takes a walk over all modules
            self.ranker.train()
        has_target = self.histories.lengths[people] > 1
        with PersonGradients(self.ranker) as gradients:
            if not has_target.all():
                yield torch.zeros(int((~has_target).sum()), gradients.parameters)
            people = people[has_target]
            at_a_time = max(1, min(PEOPLE_AT_A_TIME, NUMBERS_AT_A_TIME // gradients.parameters))
            for first in range(0, len(people), at_a_time):
                chunk = people[first : first + at_a_time]

                def losses(chunk: np.ndarray = chunk) -> Tensor:
                    return step_losses(self.ranker, self.histories, chunk, step=step, training=self.training)

                yield gradients.compute(losses, people=len(chunk))

    def metrics(self, shared: Arrays, names: Sequence[str]) -> np.ndarray:
        return person_metrics(self.ranker, self.histories, shared, metrics=names, mask_last=self.training.mask_last)

    def statistics(self, counting: Counting) -> Iterable[Row]:
        return person_statistics(self.histories, counting)


def private_direction(
    learner: Learner, start: Arrays, *, mechanism: Mechanism, steps: int, learning_rate: float
) -> Arrays:
    """Take ``steps`` private steps from ``start`` and return their sum, a descent direction.

    Args:
        learner: what learns, and from whom. Sensitive.
        start: the shared arrays.
        mechanism: samples, clips, adds noise, divides by the public normaliser, and counts.
        steps: >= 1; each is charged whether or not anyone is sampled.
        learning_rate: how far the shared arrays move between the steps.

    Returns:
        ``-sum of released gradients`` by array name, float32. Private when the mechanism's plan is.
    """
    schema = learner.schema
    origin = flatten(start, schema)
    direction = np.zeros_like(origin)
    for _ in range(steps):
        shared = unflatten(origin + learning_rate * direction, schema)
        step = mechanism.steps_taken
        sampled = mechanism.sample(len(learner))
        with closing(learner.gradients(sampled, shared, step=step)) as chunks:
            direction -= mechanism.release(chunks, len(origin))
    return unflatten(direction, schema)


def step_losses(
    ranker: Ranker, histories: Histories, people: np.ndarray, *, step: int, training: LocalTraining
) -> Tensor:
    """Return the loss of each of some people in one step, (B,); each has at least two events."""
    windows = padded([window_of_step(histories.of(int(i)), step=step, history=ranker.spec.history) for i in people])
    negatives = public_negatives(ranker.items, training, step=step)
    if negatives is not None:
        negatives = negatives.to(ranker.device)
    return person_losses(ranker, windows.to(ranker.device), mask_last=training.mask_last, negatives=negatives)


def public_negatives(items: int, training: LocalTraining, *, step: int) -> Tensor | None:
    """Draw the step's uniform items of the public catalogue, the same for everyone; None for all items."""
    if training.negatives is None or training.negatives >= items:
        return None
    rng = np.random.default_rng([training.seed, step])
    return torch.from_numpy(rng.choice(items, training.negatives, replace=False))
