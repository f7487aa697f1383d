"""Counts of people that may leave a client: one bounded row a person, summed, noised once, divided by a public number.

The counts are released once in a run, so everybody takes part and nothing is sampled; whoever reads them afterwards
may cut, smooth or weigh them as they like, at no further cost.
"""

from collections.abc import Iterable

import numpy as np

from fedrec.errors import PrivacyError
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import RandomSource

Row = tuple[np.ndarray, np.ndarray]
"""One person's sparse row: places (K,), ascending, and values (K,)."""

_SHRINK = 1.0 - 1e-9  # so that the bound also holds after rounding in float64
_GRID = 2.0**32  # values are whole multiples of 1 / _GRID: sums of up to 2**21 people are exact


def release_statistics(plan: PrivacyPlan, random: RandomSource, *, people: Iterable[Row], size: int) -> np.ndarray:
    """Release the counts of one client's people, once.

    Everyone takes part, each with a row at most 1 long. The sum gets the client's share of normal noise of deviation
    ``statistics_noise_multiplier`` and is divided by the plan's expected people, never by the number of rows.

    Args:
        plan: with a release of statistics.
        random: of the noise; must be private when the plan is.
        people: one row a person, read once. Sensitive.
        size: S, of the vector that the rows are sparse rows of.

    Returns:
        (S,), float64. Worth one ``plan.statistics_release()``. Private when the plan is and its trust is local; else
        what it is summed with has to make it so.

    Raises:
        PrivacyError: the plan has no such release, ``random`` can be predicted, or a row is no sparse row.

    Guarantee: adding or removing one person moves the sum before the noise by at most 1.
    Source: Dwork and Roth 2014, Appendix A (Gaussian mechanism of L2 sensitivity),
    https://doi.org/10.1561/0400000042
    """
    noise = plan.client_share(plan.statistics_release().noise_multiplier)
    if plan.private and random.is_private is not True:
        raise PrivacyError(
            f"{type(random).__name__} can be predicted: a private plan expects SecureRandom; "
            "use PrivacyPlan.without_privacy for repeatable runs"
        )
    total = bounded_sum(people, size=size)
    if noise > 0:
        total += noise * random.normal(size)
    return total / plan.expected_people


def bounded_sum(people: Iterable[Row], *, size: int) -> np.ndarray:
    """Sum rows that no person can make longer than 1.

    Args:
        people: one row a person. Sensitive. A row that is not finite counts as zeros; a longer one is shortened.
        size: S, of the vector that the rows are sparse rows of.

    Returns:
        (S,), float64. Sensitive until noised.

    Raises:
        PrivacyError: places that are not ascending or not below ``size``, or another number of values.

    Guarantee: adding or removing one row moves the result by at most 1 in L2 norm. With up to 2**21 rows each sum is
        exact to the last bit, so that nobody's presence rounds someone else's share.
    """
    total = np.zeros(size)
    for places, values in people:
        is_sparse = places.ndim == 1 and places.shape == values.shape and (np.diff(places) > 0).all()
        if not is_sparse or (len(places) and not 0 <= places[0] <= places[-1] < size):
            raise PrivacyError(f"a person's statistics: expected ascending places below {size}, and one value for each")
        total[places] += np.trunc(_shortened(values) * _GRID) / _GRID
    return total


def _shortened(values: np.ndarray) -> np.ndarray:
    """At most 1 long, and finite. First divided by the largest entry, so squares neither overflow nor vanish."""
    values = np.asarray(values, dtype=np.float64)
    peak = np.abs(values).max(initial=0.0)
    if not np.isfinite(peak) or peak == 0:
        return np.zeros(len(values))
    direction = values / peak
    length = float(np.linalg.norm(direction))  # in [1, sqrt(K)]
    return values if peak <= _SHRINK / length else direction * (_SHRINK / length)
