"""Who takes part in a step: an independent coin for each person (Poisson sampling)."""

import numpy as np

from fedrec.errors import PrivacyError
from fedrec.privacy.randomness import RandomSource
from fedrec.privacy.steps import check_whole


def poisson_sample(people: int, rate: float, random: RandomSource, *, batch_cap: int | None = None) -> np.ndarray:
    """Toss one coin a person, independently of every other person and step.

    Shuffled batches of fixed size are not offered: the accountant's amplification is proved for this
    sampling alone, and batches that merely look like it can cost several times the epsilon.

    Args:
        people: people at this client, >= 0. Sensitive: it must not leave.
        rate: probability of taking part, in (0, 1].
        batch_cap: >= 1; when more come up heads, a uniform subset of so many takes part. None: all do.

    Returns:
        Indices of those who take part, (B,), int64, ascending; B is random, at most ``batch_cap`` and may be 0.
        Sensitive.

    Raises:
        PrivacyError: ``people`` is negative, or ``rate`` or ``batch_cap`` out of range.

    Source: Abadi et al. 2016, https://arxiv.org/abs/1607.00133; Chua et al. 2024, https://arxiv.org/abs/2403.17673;
    the cap: Chua et al. 2025, https://arxiv.org/abs/2508.15089
    """
    if people < 0:
        raise PrivacyError("people: expected a number >= 0")
    if not 0.0 < rate <= 1.0:
        raise PrivacyError(f"sampling_rate={rate}: expected a fraction in (0, 1]; set privacy.sampling_rate")
    if batch_cap is not None:
        check_whole("batch_cap", batch_cap, least=1)
    chosen = np.flatnonzero(random.bernoulli(people, rate)).astype(np.int64)
    if batch_cap is None or len(chosen) <= batch_cap:
        return chosen
    return np.asarray(chosen[random.subset(len(chosen), count=batch_cap)])
