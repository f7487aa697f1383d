"""Evaluation metrics that may leave a client: summed over its people, noised once, divided by a public number.

A metric of real people is a release like any update: it is charged, and it is only worth what its noise leaves of it.
"""

import math

import numpy as np

from fedrec.errors import PrivacyError
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import RandomSource


def release_metrics(plan: PrivacyPlan, random: RandomSource, *, values: np.ndarray) -> np.ndarray:
    """Release k metrics of one client's people.

    Each person has one row of k numbers in [0, 1], so one person moves the k sums by at most sqrt(k) in L2 norm.
    The sums get independent normal noise of deviation ``metric_noise_multiplier``·sqrt(k), and are divided by the
    plan's expected people, never by the number of rows.

    Args:
        plan: with metric releases.
        random: of the noise; must be private when the plan is.
        values: (N, k), k >= 1. Numbers outside [0, 1] are cut; a row that is not finite counts as zeros. Sensitive.

    Returns:
        (k,), float64. Private when the plan is; worth one ``plan.metrics_release()``.

    Raises:
        PrivacyError: the plan has no metric releases, ``random`` can be predicted, or ``values`` has another shape.

    Guarantee: adding or removing one person moves the sums before the noise by at most sqrt(k).
    Source: Dwork and Roth 2014, Appendix A (Gaussian mechanism of L2 sensitivity),
    https://doi.org/10.1561/0400000042
    """
    if plan.private and random.is_private is not True:
        raise PrivacyError(
            f"{type(random).__name__} can be predicted: a private plan expects SecureRandom; "
            "use PrivacyPlan.without_privacy for repeatable runs"
        )
    if values.ndim != 2 or values.shape[1] < 1:
        raise PrivacyError(f"metrics of shape {values.shape}: expected (people, metrics), at least one metric")
    metrics = values.shape[1]
    noise = metric_noise_std(plan, metrics=metrics) * random.normal(metrics)
    released: np.ndarray = bounded_sum(values) / plan.expected_people + noise
    return released


def metric_noise_std(plan: PrivacyPlan, *, metrics: int) -> float:
    """Standard deviation of the noise in each released number, from public numbers alone; 0 without privacy.

    Args:
        plan: with metric releases.
        metrics: k, how many are released together, >= 1.

    Raises:
        PrivacyError: the plan has no metric releases.
    """
    return plan.metrics_release().noise_multiplier * math.sqrt(metrics) / plan.expected_people


def bounded_sum(values: np.ndarray) -> np.ndarray:
    """Sum rows that no person can make longer than sqrt(k).

    Args:
        values: (N, k). Sensitive.

    Returns:
        (k,), float64, each sum exact to the last bit, so that nobody's presence rounds someone else's share.
    """
    rows = np.asarray(values, dtype=np.float64)
    is_finite = np.isfinite(rows).all(axis=1, keepdims=True)
    bounded = np.clip(np.where(is_finite, rows, 0.0), 0.0, 1.0)
    return np.array([math.fsum(column) for column in bounded.T])
