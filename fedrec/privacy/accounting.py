"""How much privacy steps cost: epsilon from noise, sampling rate and number of steps.

Google's privacy loss distributions (PLD) with pessimistic discretisation are an upper bound and the
tightest that is widely checked; Renyi accounting (RDP) is the looser cross-check. The Gaussian (CLT)
approximation is not here because it under-reports by up to 2.5 times.
Source: Doroshenko et al. 2022, https://arxiv.org/abs/2207.04380 (connect the dots).
"""

import math
from collections import deque
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from importlib.metadata import version

from fedrec.errors import PrivacyError
from fedrec.privacy.losses import ADD_OR_REMOVE, RELATIONS, REPLACE_ONE, ZERO_OUT, composed_loss
from fedrec.privacy.renyi import renyi_bound
from fedrec.privacy.steps import Steps, check_delta, check_whole, checked, merged

__all__ = [
    "ACCOUNTANT",
    "ADD_OR_REMOVE",
    "REPLACE_ONE",
    "ZERO_OUT",
    "Steps",
    "calibrated_noise_multiplier",
    "composed_epsilon",
    "composed_rdp_epsilon",
    "epsilon",
    "epsilon_at_clients",
    "is_within",
    "rdp_epsilon",
    "round_up",
]

ACCOUNTANT = f"dp-accounting {version('dp-accounting')} PLD"

_FINE = 1e-4  # discretisation of the privacy loss
_COARSE = 1e-3  # also an upper bound; keeps time and memory in hand where epsilon is large anyway
_COARSE_FROM = 100.0
_RENYI_FROM = 1000.0  # no meaningful guarantee any more: the Renyi bound is enough
_GRID = 10_000  # a calibrated noise multiplier is a multiple of 1/_GRID
_LARGEST_NOISE = 2.0**20
_WITHIN: deque[tuple[tuple[Steps, ...], float, float]] = deque(maxlen=256)  # a cache: history, delta, its epsilon


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


def composed_epsilon(spendings: tuple[Steps, ...], delta: float, *, relation: str = ADD_OR_REMOVE) -> float:
    """Epsilon of several runs of steps on the same people, whatever their noise, rate and cap.

    The parameters of every run must have been fixed without looking at private outputs; when they
    were not, ``fedrec.privacy.filter`` bounds the loss.

    Args:
        delta: in (0, 1).
        relation: how neighbouring data sets differ: ``ADD_OR_REMOVE``, ``REPLACE_ONE`` or ``ZERO_OUT``.

    Returns:
        >= 0, an upper bound; the same to the last bit for every order and split of the same steps.

    Raises:
        PrivacyError: an argument out of range or not finite.
    """
    check_delta(delta)
    if relation not in RELATIONS:
        raise PrivacyError(f"relation={relation!r}: expected one of {', '.join(RELATIONS)}")
    return _composed_epsilon(merged(spendings), float(delta), _FINE, relation)


def rdp_epsilon(noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
    """The Renyi bound on the same quantity: never below ``epsilon``, computed by other mathematics.

    Raises:
        PrivacyError: an argument out of range or not finite.
    """
    return composed_rdp_epsilon((Steps(noise_multiplier, sampling_rate, steps),), delta)


def composed_rdp_epsilon(spendings: tuple[Steps, ...], delta: float) -> float:
    """The Renyi bound on ``composed_epsilon`` for neighbours that add or remove one person.

    Raises:
        PrivacyError: an argument out of range or not finite.
    """
    check_delta(delta)
    return _renyi_epsilon(merged(spendings), float(delta))


def is_within(spendings: tuple[Steps, ...], delta: float, limit: float, *, foreseen: tuple[Steps, ...] = ()) -> bool:
    """Whether everything in ``spendings`` costs at most ``limit``, found out as cheaply as possible.

    The Renyi bound answers most questions in about a millisecond and without the accounting library. Where it
    does not, the distributions are composed once for ``foreseen`` too, which holds ``spendings`` and whatever is
    expected to follow; every later question about less than that is then answered from memory.

    Args:
        delta: in (0, 1).
        limit: epsilon; NaN allows nothing.
        foreseen: a larger history, or nothing.

    Returns:
        True only when an upper bound on epsilon is at most ``limit``.

    Raises:
        PrivacyError: an argument out of range or not finite.
    """
    check_delta(delta)
    now, later = merged(spendings), merged(foreseen)
    if _is_known_within(now, float(delta), limit) or _renyi_epsilon(now, float(delta)) <= limit:
        return True
    if _contains(later, now) and _remember_within(later, float(delta), limit):
        return True
    return _remember_within(now, float(delta), limit)


def epsilon_at_clients(
    noise_multiplier: float, sampling_rate: float, steps: int, delta: float, *, clients: int
) -> float:
    """Epsilon of a person whose history lies at ``clients`` >= 1 clients that each take ``steps`` steps.

    Raises:
        PrivacyError: an argument out of range or not finite.
    """
    check_whole("clients", clients, least=1)
    check_whole("steps", steps, least=0)
    return epsilon(noise_multiplier, sampling_rate, clients * steps, delta)


@lru_cache(maxsize=1024)
def calibrated_noise_multiplier(
    target_epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    *,
    batch_cap: int | None = None,
    max_people: int | None = None,
    others: tuple[Steps, ...] = (),
) -> float:
    """The smallest noise multiplier, on a grid of 1e-4, whose epsilon is at most the target.

    Args:
        target_epsilon: > 0, finite.
        delta: in (0, 1).
        sampling_rate: in (0, 1].
        steps: >= 1.
        batch_cap, max_people: of ``Steps``, both or neither.
        others: what else is released to the same people and shares the target.

    Raises:
        PrivacyError: an argument out of range, or a target that no reasonable noise reaches.

    Guarantee: the composed epsilon of these steps and ``others`` is <= target_epsilon, verified on return.
    """
    check_delta(delta)
    check_whole("steps", steps, least=1)
    shape = checked(Steps(1.0, sampling_rate, steps, batch_cap, max_people))
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise PrivacyError(f"epsilon={target_epsilon}: expected a finite number > 0; set privacy.epsilon")
    if others and composed_epsilon(others, delta) > target_epsilon:
        raise PrivacyError(f"epsilon={target_epsilon}: the other releases spend it all; raise their noise or epsilon")

    def spent(cell: int, interval: float) -> float:
        spendings = (*others, shape._replace(noise_multiplier=cell / _GRID))
        return _composed_epsilon(merged(spendings), float(delta), interval, ADD_OR_REMOVE)

    cell = _smallest_cell(spent, target_epsilon)
    if cell is None:
        raise PrivacyError(f"epsilon={target_epsilon} at delta={delta}: no noise reaches it; raise privacy.epsilon")
    while spent(cell, _FINE) > target_epsilon:
        cell += 1
    return cell / _GRID


def round_up(value: float, digits: int = 4) -> float:
    """``value`` for display: never less than it is, ``digits`` decimals; infinity stays."""
    if not math.isfinite(value):
        return value
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING))


def _smallest_cell(spent: Callable[[int, float], float], target: float) -> int | None:
    """Search on the coarse bound, then go down with the fine one, which is dearer; None: nothing is enough."""
    high = _GRID
    while not spent(high, _COARSE) <= target:
        high *= 2
        if high > _LARGEST_NOISE * _GRID:
            return None
    low = high // 2
    while low > 0 and spent(low, _COARSE) <= target:
        high, low = low, low // 2
    high = _search(lambda cell: spent(cell, _COARSE), target, low, high)
    stride = max(high // 1000, 1)
    while high > stride and spent(high - stride, _FINE) <= target:
        high, stride = high - stride, 2 * stride
    return _search(lambda cell: spent(cell, _FINE), target, max(high - stride, 0), high)


def _search(spent: Callable[[int], float], target: float, low: int, high: int) -> int:
    """The smallest cell above ``low`` that is enough, given that ``high`` is: try where a line points, else halve."""
    is_half = False
    while high - low > 1:
        above, below = spent(low), spent(high)
        is_line = not is_half and math.isfinite(above) and above > below
        share = min(max((above - target) / (above - below), 0.0), 1.0) if is_line else 0.5
        middle = min(max(math.ceil(low + share * (high - low)), low + 1), high - 1)
        width = high - low
        low, high = (low, middle) if spent(middle) <= target else (middle, high)
        is_half = 2 * (high - low) > width  # the line gained little: halve next
    return high


@lru_cache(maxsize=65536)
def _composed_epsilon(spendings: tuple[Steps, ...], delta: float, interval: float, relation: str) -> float:
    if not spendings:
        return 0.0
    renyi = _renyi_epsilon(spendings, delta)
    if renyi == math.inf or (renyi > _RENYI_FROM and relation == ADD_OR_REMOVE):
        return renyi
    interval = _COARSE if renyi > _COARSE_FROM else interval
    epsilon = max(float(composed_loss(spendings, interval, relation).get_epsilon_for_delta(delta)), 0.0)
    # Below what the discretised tail leaves (delta of 1e-15 or so) only the Renyi bound, also an upper one, is finite.
    return renyi if epsilon == math.inf and relation == ADD_OR_REMOVE else epsilon


@lru_cache(maxsize=65536)
def _renyi_epsilon(spendings: tuple[Steps, ...], delta: float) -> float:
    return renyi_bound(spendings, delta)


def _is_known_within(spendings: tuple[Steps, ...], delta: float, limit: float) -> bool:
    return any(
        known_delta <= delta and spent <= limit and _contains(known, spendings)
        for known, known_delta, spent in tuple(_WITHIN)
    )


def _remember_within(spendings: tuple[Steps, ...], delta: float, limit: float) -> bool:
    """Compose in full; remember what it came to when that is within the limit."""
    spent = _composed_epsilon(spendings, delta, _FINE, ADD_OR_REMOVE)
    if spent <= limit:
        _WITHIN.append((spendings, delta, spent))
    return spent <= limit


def _contains(larger: tuple[Steps, ...], smaller: tuple[Steps, ...]) -> bool:
    """Whether ``larger`` has at least as many steps of every mechanism; more steps never cost less."""
    steps = {spending._replace(steps=0): spending.steps for spending in larger}
    return all(spending.steps <= steps.get(spending._replace(steps=0), -1) for spending in smaller)
