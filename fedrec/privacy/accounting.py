"""How much privacy steps cost: epsilon from noise, sampling rate and number of steps.

Google's privacy loss distributions (PLD) with pessimistic discretisation are an upper bound and the
tightest that is widely checked; Renyi accounting (RDP) is the looser cross-check. The Gaussian (CLT)
approximation is not here because it under-reports by up to 2.5 times.
Source: Doroshenko et al. 2022, https://arxiv.org/abs/2207.04380 (connect the dots).
"""

import math
from collections import defaultdict
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import NamedTuple

from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant

from fedrec.errors import PrivacyError

ACCOUNTANT = f"dp-accounting {version('dp-accounting')} PLD"

_FINE = 1e-4  # discretisation of the privacy loss
_COARSE = 1e-3  # also an upper bound; keeps time and memory in hand where epsilon is large anyway
_COARSE_FROM = 100.0
_RENYI_FROM = 1000.0  # no meaningful guarantee any more: the Renyi bound is enough
_GRID = 10_000  # a calibrated noise multiplier is a multiple of 1/_GRID
_LARGEST_NOISE = 2.0**20
_ORDERS = [*range(2, 65), 80, 96, 128, 192, 256, 384, 512, 1024]  # integers: closed form, always converges


class Steps(NamedTuple):
    """Some steps of one mechanism: Poisson sampling at a rate, then Gaussian noise of sigma x clip norm."""

    noise_multiplier: float
    sampling_rate: float
    steps: int


def epsilon(noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
    """Epsilon of ``steps`` steps, for neighbours that add or remove one person.

    Args:
        noise_multiplier: sigma >= 0; 0 means no noise.
        sampling_rate: q in (0, 1], the probability that a person is in a step.
        steps: >= 0.
        delta: in (0, 1).

    Returns:
        >= 0, an upper bound; 0 for no steps, infinity without noise.

    Raises:
        PrivacyError: an argument out of range or not finite.
    """
    return composed_epsilon((Steps(noise_multiplier, sampling_rate, steps),), delta)


def composed_epsilon(spendings: tuple[Steps, ...], delta: float) -> float:
    """Epsilon of several runs of steps on the same people, whatever their noise and rate.

    The parameters of every run must have been fixed without looking at private outputs.

    Raises:
        PrivacyError: an argument out of range or not finite.
    """
    _check_delta(delta)
    return _composed_epsilon(_merged(spendings), float(delta))


def rdp_epsilon(noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
    """The Renyi bound on the same quantity: never below ``epsilon``, computed by other mathematics.

    Raises:
        PrivacyError: an argument out of range or not finite.
    """
    _check_delta(delta)
    return _renyi_epsilon(_merged((Steps(noise_multiplier, sampling_rate, steps),)), float(delta))


def epsilon_at_clients(
    noise_multiplier: float, sampling_rate: float, steps: int, delta: float, *, clients: int
) -> float:
    """Epsilon of a person whose history lies at ``clients`` >= 1 clients that each take ``steps`` steps.

    Raises:
        PrivacyError: an argument out of range or not finite.
    """
    _check_whole("clients", clients, least=1)
    _check_whole("steps", steps, least=0)
    return epsilon(noise_multiplier, sampling_rate, clients * steps, delta)


@lru_cache(maxsize=1024)
def calibrated_noise_multiplier(target_epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The smallest noise multiplier, on a grid of 1e-4, whose ``epsilon`` is at most the target.

    Args:
        target_epsilon: > 0, finite.
        delta: in (0, 1).
        sampling_rate: in (0, 1].
        steps: >= 1.

    Raises:
        PrivacyError: an argument out of range, or a target that no reasonable noise reaches.

    Guarantee: ``epsilon(result, sampling_rate, steps, delta) <= target_epsilon``, verified on return.
    """
    _check_delta(delta)
    _check_whole("steps", steps, least=1)
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise PrivacyError(f"epsilon={target_epsilon}: expected a finite number > 0; set privacy.epsilon")
    cell = _smallest_cell(target_epsilon, delta, sampling_rate, steps)
    while epsilon(cell / _GRID, sampling_rate, steps, delta) > target_epsilon:
        cell += 1
    return cell / _GRID


def round_up(value: float, digits: int = 4) -> float:
    """``value`` for display: never less than it is, ``digits`` decimals; infinity stays."""
    if not math.isfinite(value):
        return value
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING))


def _smallest_cell(target: float, delta: float, rate: float, steps: int) -> int:
    """Bisect on the coarse bound, then walk down with the fine one, which is dearer."""

    def is_enough(cell: int, interval: float) -> bool:
        return _composed_epsilon(_merged((Steps(cell / _GRID, rate, steps),)), delta, interval) <= target

    high = _GRID
    while not is_enough(high, _COARSE):
        high *= 2
        if high > _LARGEST_NOISE * _GRID:
            raise PrivacyError(f"epsilon={target} at delta={delta}: no noise reaches it; raise privacy.epsilon")
    low = high // 2
    while low > 0 and is_enough(low, _COARSE):
        high, low = low, low // 2
    high = _bisect(lambda cell: is_enough(cell, _COARSE), low, high)
    stride = 1
    while high > stride and is_enough(high - stride, _FINE):
        high, stride = high - stride, 2 * stride
    return _bisect(lambda cell: is_enough(cell, _FINE), max(high - stride, 0), high) if stride > 1 else high


def _bisect(is_enough: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest cell above ``low`` that is enough, given that ``high`` is."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


@lru_cache(maxsize=65536)
def _composed_epsilon(spendings: tuple[Steps, ...], delta: float, interval: float = _FINE) -> float:
    if not spendings:
        return 0.0
    if any(spending.noise_multiplier == 0 for spending in spendings):
        return math.inf
    renyi = _renyi_epsilon(spendings, delta)
    if renyi > _RENYI_FROM:
        return renyi
    interval = _COARSE if renyi > _COARSE_FROM else interval
    total = pld.identity(interval)
    for spending in spendings:
        total = total.compose(_loss_distribution(spending, interval))
    return max(float(total.get_epsilon_for_delta(delta)), 0.0)


def _loss_distribution(spending: Steps, interval: float) -> pld.PrivacyLossDistribution:
    if spending.sampling_rate == 1.0:  # Gaussians compose exactly into one
        return _one_step(spending.noise_multiplier / math.sqrt(spending.steps), 1.0, interval)
    return _one_step(spending.noise_multiplier, spending.sampling_rate, interval).self_compose(spending.steps)


@lru_cache(maxsize=16)
def _one_step(noise_multiplier: float, sampling_rate: float, interval: float) -> pld.PrivacyLossDistribution:
    return pld.from_gaussian_mechanism(
        noise_multiplier,
        sampling_prob=sampling_rate,
        value_discretization_interval=interval,
        pessimistic_estimate=True,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
    )


def _renyi_epsilon(spendings: tuple[Steps, ...], delta: float) -> float:
    if any(spending.noise_multiplier == 0 for spending in spendings):
        return math.inf
    accountant = RdpAccountant(_ORDERS)
    for spending in spendings:
        gaussian = dp_event.GaussianDpEvent(spending.noise_multiplier)
        accountant.compose(dp_event.PoissonSampledDpEvent(spending.sampling_rate, gaussian), spending.steps)
    return float(accountant.get_epsilon(delta)) if spendings else 0.0


def _merged(spendings: tuple[Steps, ...]) -> tuple[Steps, ...]:
    """Check each, add up equal ones and sort, so that equal histories share one cache entry."""
    totals: dict[tuple[float, float], int] = defaultdict(int)
    for spending in spendings:
        noise, rate, steps = _checked(spending)
        totals[noise, rate] += steps
    return tuple(Steps(noise, rate, steps) for (noise, rate), steps in sorted(totals.items()) if steps > 0)


def _checked(spending: Steps) -> Steps:
    noise, rate, steps = spending
    if not (math.isfinite(noise) and noise >= 0):
        raise PrivacyError(f"noise_multiplier={noise}: expected a finite number >= 0")
    if not 0.0 < rate <= 1.0:
        raise PrivacyError(f"sampling_rate={rate}: expected a fraction in (0, 1]; set privacy.sampling_rate")
    _check_whole("steps", steps, least=0)
    return Steps(float(noise), float(rate), steps)


def _check_delta(delta: float) -> None:
    if not 0.0 < delta < 1.0:
        raise PrivacyError(f"delta={delta}: expected a number in (0, 1); set privacy.delta")


def _check_whole(name: str, value: int, *, least: int) -> None:
    if type(value) is not int or value < least:
        raise PrivacyError(f"{name}={value!r}: expected a whole number >= {least}")
