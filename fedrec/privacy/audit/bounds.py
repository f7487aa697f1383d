"""From an attack's guesses and scores to lower limits on the privacy loss. Pure numbers; no engine here.

Two ways to read one attack. The strict bound holds for any mechanism and any attack, and is loose. The
Gaussian estimate reads the same attack as if the engine were a Gaussian mechanism: close to the truth, so
that too little noise shows, but an estimate and no proof.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)  # of the canaries that are guessed; the rest abstains
_LARGEST_EPSILON = 100.0


class ErrorRates(NamedTuple):
    """How often a test was wrong: ``false_alarms`` of ``absent``, ``misses`` of ``present`` canaries."""

    false_alarms: int
    absent: int
    misses: int
    present: int


class GaussianLimit(NamedTuple):
    """Gaussian privacy ``mu`` that an attack shows: the estimate, and the limit it is certainly not below."""

    estimate: float
    lower: float


def epsilon_of_gaussian(mu: float, delta: float) -> float:
    """Epsilon of mu-Gaussian privacy at ``delta``.

    Args:
        mu: >= 0, distance of the means in standard deviations; infinity means no privacy.
        delta: in (0, 1).

    Source: Dong et al. 2022, Corollary 2.13, https://arxiv.org/abs/1905.02383
    """
    if mu <= 0 or stats.norm.cdf(mu / 2) - stats.norm.cdf(-mu / 2) <= delta:
        return 0.0
    if not math.isfinite(mu):
        return math.inf

    def gap(epsilon: float) -> float:
        removed = math.exp(epsilon + float(stats.norm.logcdf(-epsilon / mu - mu / 2)))
        return float(stats.norm.cdf(-epsilon / mu + mu / 2)) - removed - delta

    high = 1.0
    while gap(high) > 0:
        high *= 2.0
    return float(optimize.brentq(gap, 0.0, high, xtol=1e-9))


def one_run_p_value(canaries: int, guesses: int, correct: int, *, epsilon: float, delta: float) -> float:
    """Largest chance that an (epsilon, delta)-private mechanism lets ``correct`` or more guesses be right.

    Args:
        canaries: m, each in or out by a fair coin.
        guesses: r <= m, on those canaries where the attacker does not abstain.
        correct: v <= r.

    Source: Steinke et al. 2023, Theorem 5.2 and Appendix D, https://arxiv.org/abs/2305.08846
    """
    accuracy = 1.0 / (1.0 + math.exp(-epsilon))  # of randomised response
    by_luck = float(stats.binom.sf(correct - 1, guesses, accuracy))
    just_below = np.cumsum(stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, accuracy))
    by_failure = float(np.max(just_below / np.arange(1, correct + 1))) if correct else 0.0
    return min(1.0, by_luck + 2.0 * canaries * delta * by_failure)


def one_run_epsilon(canaries: int, guesses: int, correct: int, *, delta: float, miss: float) -> float:
    """The largest epsilon that so many correct guesses refute, wrong with probability at most ``miss``; 0 when none."""

    def doubt(epsilon: float) -> float:
        return one_run_p_value(canaries, guesses, correct, epsilon=epsilon, delta=delta) - miss

    if doubt(0.0) > 0:
        return 0.0
    if doubt(_LARGEST_EPSILON) < 0:
        return _LARGEST_EPSILON
    return float(optimize.brentq(doubt, 0.0, _LARGEST_EPSILON, xtol=1e-6))


def strict_epsilon(scores: np.ndarray, is_in: np.ndarray, *, delta: float, miss: float) -> float:
    """Lower limit on epsilon from one run: guess the highest scores in, the lowest out, abstain between.

    Five numbers of guesses are tried, fixed in advance, each at a fifth of ``miss``.

    Args:
        scores: one a canary, (m,); higher speaks for having taken part.
        is_in: (m,) bool, fair coins.

    Returns:
        >= 0; wrong with probability at most ``miss``.
    """
    order = np.argsort(scores, kind="stable")
    canaries, best = len(scores), 0.0
    for share in _SHARES:
        half = max(1, int(share * canaries / 2))
        correct = int((~is_in[order[:half]]).sum() + is_in[order[-half:]].sum())
        bound = one_run_epsilon(canaries, 2 * half, correct, delta=delta, miss=miss / len(_SHARES))
        best = max(best, bound)
    return best


def gaussian_mu(scores: np.ndarray, is_in: np.ndarray, *, thresholds: np.ndarray, miss: float) -> GaussianLimit:
    """Gaussian privacy that an attack shows, at the threshold that shows most.

    Args:
        scores, is_in: as for ``strict_epsilon``.
        thresholds: (K,), chosen without looking at ``scores``.
        miss: chance that ``lower`` exceeds the largest mu at which the mechanism operates, over all thresholds.

    Source: mu = inverse normal of (1 - false alarms) minus that of misses, Dong et al. 2022, equation 6,
        with Clopper-Pearson limits on both rates as in Nasr et al. 2023, https://arxiv.org/abs/2302.07956
    """
    present, absent = scores[is_in], scores[~is_in]
    found = [
        ErrorRates(int((absent >= limit).sum()), len(absent), int((present < limit).sum()), len(present))
        for limit in thresholds
    ]
    lower = max(_mu(*_upper_rates(rates, miss / (2 * len(thresholds)))) for rates in found)
    return GaussianLimit(max(_mu(*_smoothed_rates(rates)) for rates in found), max(lower, 0.0))


def rate_limit(errors: int, trials: int, *, miss: float) -> float:
    """Upper limit on a rate after ``errors`` in ``trials``, wrong with probability at most ``miss``.

    Source: Clopper and Pearson 1934.
    """
    return 1.0 if errors >= trials else float(stats.beta.isf(miss, errors + 1, trials - errors))


def _mu(false_alarm_rate: float, miss_rate: float) -> float:
    return float(stats.norm.isf(false_alarm_rate) - stats.norm.ppf(miss_rate))


def _upper_rates(rates: ErrorRates, miss: float) -> tuple[float, float]:
    return rate_limit(rates.false_alarms, rates.absent, miss=miss), rate_limit(rates.misses, rates.present, miss=miss)


def _smoothed_rates(rates: ErrorRates) -> tuple[float, float]:
    """Observed rates, half an error added so that none is 0 or 1."""
    return (rates.false_alarms + 0.5) / (rates.absent + 1), (rates.misses + 0.5) / (rates.present + 1)
