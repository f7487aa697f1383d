"""Checks on the noise and on who is sampled: each a test that a sound engine fails less than once in 10^9 audits."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from fedrec.privacy.plan import PrivacyPlan

FALSE_ALARM = 1e-9  # of each test below


@dataclass(frozen=True)
class Check:
    """One result.

    Attributes:
        name: what must hold, in a few words.
        passed: whether it does.
        detail: what was measured and what was expected.
    """

    name: str
    passed: bool
    detail: str


class Noise(NamedTuple):
    """What is left of one step when the known part is taken away: ``values`` (W,), 1 = sigma·C / (q·n)."""

    source: str
    values: np.ndarray


def noise_scale(name: str, noise: list[Noise]) -> Check:
    """The noise is as large as the plan says; chi-square on its sum of squares, both sides."""
    values = np.concatenate([one.values for one in noise])
    low, high = (math.sqrt(stats.chi2.ppf(p, len(values)) / len(values)) for p in _both_sides())
    measured = math.sqrt(float(np.mean(np.square(values))))
    return Check(
        name,
        low <= measured <= high,
        f"standard deviation over {len(values):,} numbers is {measured:.4f} of the planned one, "
        f"expected {low:.4f} to {high:.4f}",
    )


def noise_shape(noise: list[Noise], *, name: str = "noise is normal") -> Check:
    """The noise is normal; Kolmogorov-Smirnov distance."""
    values = np.concatenate([one.values for one in noise])
    outcome = stats.kstest(values, "norm", method="asymp")
    limit = float(stats.kstwobign.isf(FALSE_ALARM)) / math.sqrt(len(values))
    return Check(
        name,
        bool(outcome.statistic <= limit),
        f"distance of {len(values):,} numbers from the normal law is {outcome.statistic:.4f}, "
        f"expected at most {limit:.4f}",
    )


def noise_is_fresh(noise: list[Noise]) -> Check:
    """No two steps, clients or calls share noise; the largest correlation of any pair."""
    name, width = "noise is never used twice", min(len(one.values) for one in noise)
    rows = np.array([one.values[:width] for one in noise])
    length = np.linalg.norm(rows, axis=1)
    if not (length > 0).all():
        return Check(name, False, f"{noise[int(np.argmin(length))].source}: no noise at all")
    correlation = np.abs(rows @ rows.T) / np.outer(length, length)
    np.fill_diagonal(correlation, 0.0)
    first, second = np.unravel_index(int(correlation.argmax()), correlation.shape)
    pairs = len(noise) * (len(noise) - 1) / 2
    limit = float(stats.norm.isf(FALSE_ALARM / (2.0 * pairs))) / math.sqrt(width)
    return Check(
        name,
        bool(correlation.max() <= limit),
        f"largest correlation of {pairs:,.0f} pairs is {correlation.max():.4f} "
        f"({noise[int(first)].source} and {noise[int(second)].source}), expected at most {limit:.4f}",
    )


def inclusion_rate(masks: np.ndarray, plan: PrivacyPlan, *, name: str) -> Check:
    """People take part as often as the plan says; exact binomial, both sides.

    Args:
        masks: (S, N) bool, who took part in each step; each a coin of its own.
    """
    taken, coins = int(masks.sum()), masks.size
    low, high = (int(stats.binom.ppf(p, coins, plan.sampling_rate)) for p in _both_sides())
    return Check(
        name,
        low <= taken <= high,
        f"{taken:,} of {coins:,} coins fell for taking part, "
        f"expected {low:,} to {high:,} at q = {plan.sampling_rate:g}",
    )


def batches_vary(masks: np.ndarray, plan: PrivacyPlan) -> Check:
    """Batch sizes spread as sums of coins do; a fixed size does not."""
    return _dispersion("batch sizes vary as independent coins make them", masks.sum(axis=1), masks.shape[1], plan)


def people_vary(masks: np.ndarray, plan: PrivacyPlan) -> Check:
    """How often each person took part spreads as sums of coins do; shuffled epochs do not."""
    return _dispersion("people's turns vary as independent coins make them", masks.sum(axis=0), masks.shape[0], plan)


def batches_overlap(masks: np.ndarray, plan: PrivacyPlan) -> Check:
    """A step does not depend on the one before: people in both, over disjoint pairs of steps; exact binomial."""
    pairs = masks.shape[0] // 2
    both = int((masks[0 : 2 * pairs : 2] & masks[1 : 2 * pairs : 2]).sum())
    coins, rate = pairs * masks.shape[1], plan.sampling_rate**2
    low, high = (int(stats.binom.ppf(p, coins, rate)) for p in _both_sides())
    return Check(
        "batches are independent of each other",
        low <= both <= high,
        f"{both:,} people in two steps running, expected {low:,} to {high:,}",
    )


def _dispersion(name: str, counts: np.ndarray, coins: int, plan: PrivacyPlan) -> Check:
    """Mean square of counts, each a sum of ``coins`` coins, around their known mean.

    Under the plan it is nearly a chi-square over its degrees of freedom, which are chosen so that the variance
    is right too: 2 + excess kurtosis of a binomial for each count (Satterthwaite 1946).
    """
    rate = plan.sampling_rate
    if rate == 1.0:
        return Check(name, bool((counts == coins).all()), "everyone takes part in every step, expected at q = 1")
    variance = coins * rate * (1.0 - rate)
    measured = float(np.mean(np.square(counts - coins * rate))) / variance
    excess = (1.0 - 6.0 * rate * (1.0 - rate)) / variance
    freedom = 2.0 * len(counts) / (2.0 + excess)
    low, high = (float(stats.chi2.ppf(p, freedom)) / freedom for p in _both_sides())
    return Check(
        name,
        low <= measured <= high,
        f"variance of {len(counts)} counts is {measured:.3f} of a binomial's, expected {low:.3f} to {high:.3f}",
    )


def _both_sides() -> tuple[float, float]:
    return FALSE_ALARM / 2.0, 1.0 - FALSE_ALARM / 2.0
