"""What a guarantee means to an attacker who wants to know whether one person took part.

Readings of the privacy loss distribution, not further promises. The attacker modelled here knows everybody
else's history and every public number, and sees every release.
"""

import math

import numpy as np

from fedrec.privacy.accounting import ADD_OR_REMOVE, composed_epsilon
from fedrec.privacy.losses import composed_loss
from fedrec.privacy.steps import Steps, merged

_INTERVAL, _COARSE = 1e-3, 1e-2
_COARSE_FROM = 50.0
_CURVE_POINTS = 41
_LARGEST_EPSILON = 700.0  # exp of more is no double


def delta_curve(spendings: tuple[Steps, ...], delta: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (epsilon, delta) that all hold for these releases, from epsilon 0 to the one at ``delta``.

    Args:
        spendings: every one with noise.
        delta: in (0, 1), where the curve ends.

    Returns:
        Two arrays, (41,): epsilons ascending, and a delta for each, an upper bound; (1,) where the curve ends
        at epsilon 0, which says nothing was spent only when its delta is 0 too.
    """
    if not (everything := merged(spendings)):
        return np.zeros(1), np.zeros(1)
    last = min(composed_epsilon(everything, delta), _LARGEST_EPSILON)
    epsilons = np.linspace(0.0, last, _CURVE_POINTS if last > 0.0 else 1)
    loss = composed_loss(everything, _COARSE if last > _COARSE_FROM else _INTERVAL, ADD_OR_REMOVE)
    return epsilons, np.clip(np.asarray(loss.get_delta_for_epsilon(epsilons), dtype=float), 0.0, 1.0)


def advantage(curve: tuple[np.ndarray, np.ndarray]) -> float:
    """The most by which an attacker's true positives exceed its false positives, in [0, 1].

    It is delta at epsilon 0. Source: Kairouz, Oh & Viswanath 2015, https://arxiv.org/abs/1311.0776
    """
    return float(curve[1][0])


def true_positive_rate(curve: tuple[np.ndarray, np.ndarray], false_positive_rate: float) -> float:
    """The most true positives an attacker can have at a rate of false alarms, in [0, 1].

    Each point of the curve bounds it twice; the least of all bounds holds.
    Source: Kairouz, Oh & Viswanath 2015, Theorem 2.1, https://arxiv.org/abs/1311.0776
    """
    epsilons, deltas = curve
    below = np.exp(epsilons) * false_positive_rate + deltas
    above = 1.0 - np.exp(-epsilons) * np.maximum(1.0 - deltas - false_positive_rate, 0.0)
    return float(min(np.minimum(below, above).min(), 1.0))


def gdp_mu(curve: tuple[np.ndarray, np.ndarray]) -> float:
    """The mu of the one Gaussian release that is no harder to tell apart at any point of the curve.

    The smallest mu whose delta is at least the curve's everywhere between epsilon 0 and the curve's end. Not
    the Gaussian (CLT) approximation, which under-reports: nothing is accounted for with it.
    Source: Dong, Roth & Su 2022, Corollary 2.13, https://arxiv.org/abs/1905.02383
    """
    return max(_mu_at(float(epsilon), float(delta)) for epsilon, delta in zip(*curve, strict=True))


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Delta at ``epsilon`` of one Gaussian release whose two worlds lie mu standard deviations apart.

    Source: Dong, Roth & Su 2022, Corollary 2.13, https://arxiv.org/abs/1905.02383
    """
    if mu <= 0.0:
        return 0.0
    first, second = _log_normal_cdf(-epsilon / mu + mu / 2), _log_normal_cdf(-epsilon / mu - mu / 2)
    return max(math.exp(first) - math.exp(min(epsilon + second, 0.0)), 0.0)


def unsampled_epsilon(spendings: tuple[Steps, ...], delta: float) -> float:
    """Epsilon of the same noise if everybody had been in every step, without any cap: no amplification.

    Gaussians compose exactly into one, so this is solved for and not bounded; the solution from above.
    Source: Dong, Roth & Su 2022, Corollary 3.3, https://arxiv.org/abs/1905.02383
    """
    mu = math.sqrt(math.fsum(spending.steps / spending.noise_multiplier**2 for spending in spendings))
    low, high = 0.0, 1.0
    while gaussian_delta(mu, high) > delta:
        low, high = high, 2.0 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(mu, middle) > delta else (low, middle)
    return high if mu > 0 else 0.0


def _mu_at(epsilon: float, delta: float) -> float:
    """Solve ``gaussian_delta(mu, epsilon) = delta`` from above; delta rises with mu."""
    if delta <= 0.0:
        return 0.0
    high = 1.0
    while gaussian_delta(high, epsilon) < delta and high < 1e4:
        high *= 2.0
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if gaussian_delta(middle, epsilon) >= delta else (middle, high)
    return high


def _log_normal_cdf(x: float) -> float:
    """Log of the standard normal's distribution function; deep in the tail by its asymptotic series."""
    if x > -35.0:
        return math.log(0.5 * math.erfc(-x / math.sqrt(2.0)))
    series = 1.0 - 1.0 / x**2 + 3.0 / x**4 - 15.0 / x**6
    return -x * x / 2.0 - math.log(-x * math.sqrt(2.0 * math.pi)) + math.log(series)
