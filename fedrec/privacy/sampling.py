"""Who takes part in a step: an independent coin for each person (Poisson sampling)."""

import numpy as np

from fedrec.errors import PrivacyError
from fedrec.privacy.randomness import RandomSource


def poisson_sample(people: int, rate: float, random: RandomSource) -> np.ndarray:
    """Toss one coin a person, independently of every other person and step.

    Shuffled batches of fixed size are not offered: the accountant's amplification is proved for this
    sampling alone, and batches that merely look like it can cost several times the epsilon.

    Args:
        people: people at this client, >= 0. Sensitive: it must not leave.
        rate: probability of taking part, in (0, 1].

    Returns:
        Indices of those who take part, (B,), int64, ascending; B is random and may be 0. Sensitive.

    Raises:
        PrivacyError: ``people`` is negative or ``rate`` out of range.

    Source: Abadi et al. 2016, https://arxiv.org/abs/1607.00133; Chua et al. 2024, https://arxiv.org/abs/2403.17673
    """
    if people < 0:
        raise PrivacyError("people: expected a number >= 0")
    if not 0.0 < rate <= 1.0:
        raise PrivacyError(f"sampling_rate={rate}: expected a fraction in (0, 1]; set privacy.sampling_rate")
    return np.flatnonzero(random.bernoulli(people, rate)).astype(np.int64)
