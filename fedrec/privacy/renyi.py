"""Renyi differential privacy (RDP) of our mechanisms: looser than the PLD, and other mathematics.

It serves as the cross-check, and as the filter that may stop a run whose parameters were chosen on the way.
Neighbours add or remove one person.
"""

import math
from functools import lru_cache

import numpy as np

from fedrec.privacy.losses import cap_probability
from fedrec.privacy.steps import Steps

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 384, 512, 1024)  # whole numbers: closed form, always converges


def renyi_bound(spendings: tuple[Steps, ...], delta: float) -> float:
    """Epsilon by Renyi accounting, the best of ``ORDERS``; for parameters that were fixed in advance.

    Args:
        spendings: merged.
        delta: in (0, 1).

    Returns:
        >= 0; 0 for no steps, infinity without noise.
    """
    if not spendings:
        return 0.0
    return min(epsilon_of_renyi(renyi_cost(spendings, order), order, delta) for order in ORDERS)


def renyi_cost(spendings: tuple[Steps, ...], order: int) -> float:
    """Renyi divergence of everything in ``spendings`` at one order: they simply add up.

    Args:
        spendings: checked.
        order: alpha, a whole number >= 2.

    Returns:
        >= 0, an upper bound; infinity without noise.
    """
    return math.fsum(spending.steps * _one_step(spending._replace(steps=1), order) for spending in spendings)


def epsilon_of_renyi(divergence: float, order: int, delta: float) -> float:
    """Epsilon at ``delta`` of a mechanism whose Renyi divergence at ``order`` is at most ``divergence``.

    Source: Canonne, Kamath & Steinke 2020, Proposition 12, https://arxiv.org/abs/2004.00010
    """
    if divergence == 0.0:
        return 0.0
    return max(divergence + math.log1p(-1.0 / order) - math.log(delta * order) / (order - 1), 0.0)


def allowed_renyi(epsilon: float, order: int, delta: float) -> float:
    """The divergence at ``order`` that costs exactly ``epsilon``; <= 0 when none does. Inverts ``epsilon_of_renyi``."""
    return epsilon - math.log1p(-1.0 / order) + math.log(delta * order) / (order - 1)


@lru_cache(maxsize=65536)
def _one_step(spending: Steps, order: int) -> float:
    """A step in which the cap binds for the person costs at most a Gaussian of twice the sensitivity.

    Given how many of the others are sampled, the step is either a plain Poisson step, or moves the sum by
    at most 2C because the person takes another's place. exp((alpha-1) divergence) is jointly convex, so the
    two mix linearly. The chance of the second is largest at the largest client.
    """
    noise, rate, _, _, _ = spending
    if noise == 0.0:
        return math.inf
    plain = _log_moment(noise, rate, order)
    full = cap_probability(spending)
    if full > 0.0:
        displaced = 2.0 * order * (order - 1) / noise**2
        plain = float(np.logaddexp(math.log1p(-full) + plain if full < 1.0 else -math.inf, math.log(full) + displaced))
    return max(plain, 0.0) / (order - 1)


def _log_moment(noise: float, rate: float, order: int) -> float:
    """log E[(dP/dQ)^alpha] of a Poisson-sampled Gaussian. Mironov et al. 2019, section 3.3, https://arxiv.org/abs/1908.10530"""
    if rate == 1.0:
        return order * (order - 1) / (2.0 * noise**2)
    k = np.arange(order + 1)
    choose = _log_factorials(order)[-1] - _log_factorials(order) - _log_factorials(order)[::-1]
    terms = choose + (order - k) * math.log1p(-rate) + k * math.log(rate) + k * (k - 1) / (2.0 * noise**2)
    return float(np.logaddexp.reduce(terms))


@lru_cache(maxsize=256)
def _log_factorials(order: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, order + 1)))])
