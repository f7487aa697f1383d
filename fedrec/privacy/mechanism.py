"""The one place where private gradients become something that may leave: sampled, clipped, summed, noised."""

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from fedrec.errors import PrivacyError
from fedrec.privacy.clipping import clip_sum
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import RandomSource
from fedrec.privacy.sampling import poisson_sample


class Mechanism:
    """The subsampled Gaussian mechanism of one plan, for the steps of one client.

    Get it from ``PrivacyPlan.mechanism``. A step is one ``sample`` followed by one ``release``; any
    other order is refused, because drawing again until a batch pleases voids the guarantee.
    Source: Abadi et al. 2016, Algorithm 1, https://arxiv.org/abs/1607.00133
    """

    def __init__(self, plan: PrivacyPlan, random: RandomSource, *, steps_taken: int = 0) -> None:
        if not isinstance(plan, PrivacyPlan):
            raise PrivacyError(f"plan of type {type(plan).__name__}: expected a PrivacyPlan")
        if plan.private and random.is_private is not True:
            raise PrivacyError(
                f"{type(random).__name__} can be predicted: a private plan expects SecureRandom; "
                "use PrivacyPlan.without_privacy for repeatable runs"
            )
        if type(steps_taken) is not int or steps_taken < 0:
            raise PrivacyError(f"steps_taken={steps_taken!r}: expected a whole number >= 0")
        self._plan = plan
        self._random = random
        self._steps_taken = steps_taken
        self._sampled: int | None = None

    @property
    def steps_taken(self) -> int:
        """Steps that count against the plan, failed ones included."""
        return self._steps_taken

    def sample(self, people: int) -> np.ndarray:
        """Start a step, which is charged from here on: toss a coin for each of ``people``.

        Returns:
            Indices of who takes part, (B,), int64. B may be 0: then release without gradients.

        Raises:
            PrivacyError: the plan's steps are used up, the last step was not released, or there are more
                people than the plan's ``max_people``; how many is not said.
        """
        if self._sampled is not None:
            raise PrivacyError("the last sample was not released: expected release before another sample")
        if self._steps_taken >= self._plan.steps:
            raise PrivacyError(f"all {self._plan.steps} steps of the plan are taken; make a plan with more rounds")
        if self._plan.max_people is not None and people > self._plan.max_people:
            raise PrivacyError(f"more people than max_people={self._plan.max_people}: make a plan with a higher bound")
        chosen = poisson_sample(people, self._plan.sampling_rate, self._random, batch_cap=self._plan.batch_cap)
        self._steps_taken += 1
        self._sampled = len(chosen)
        return chosen

    def release(self, chunks: Iterable[Tensor], parameters: int) -> np.ndarray:
        """Finish the step: sum the clipped gradients of the sampled people, add noise once, normalise.

        Args:
            chunks: the sampled people's gradients, each chunk (B, P), in any split; someone whose
                gradient is undefined contributes a row of zeros. Sensitive.
            parameters: P.

        Returns:
            (P,), float64: (sum of clipped + sigma·C·normal) / (q·n), with the client's own sigma. Private when the
            plan is and its trust is local; else what it is summed with has to make it so.

        Raises:
            PrivacyError: no sample was drawn, a chunk of another width, or another number of rows than
                people were sampled. The step stays charged.
        """
        sampled, self._sampled = self._sampled, None
        if sampled is None:
            raise PrivacyError("release without a sample: expected sample before each release")
        total = self._clipped_total(chunks, parameters, sampled)
        if (noise := self._plan.client_noise_multiplier) > 0:
            total += noise * self._plan.clip_norm * self._random.normal(parameters)
        return total / self._plan.normaliser

    def _clipped_total(self, chunks: Iterable[Tensor], parameters: int, sampled: int) -> np.ndarray:
        total = np.zeros(parameters, dtype=np.float64)
        rows = 0
        for chunk in chunks:
            if chunk.dim() != 2 or chunk.shape[1] != parameters:
                raise PrivacyError(f"gradients of shape {tuple(chunk.shape)}: expected (B, {parameters})")
            rows += len(chunk)
            total += clip_sum(chunk, self._plan.clip_norm, self._plan.clipping).cpu().numpy()
        if rows != sampled:
            raise PrivacyError("rows of gradients and sampled people differ: expected one row for each sampled person")
        return total
