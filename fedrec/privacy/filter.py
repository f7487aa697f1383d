"""A privacy filter: what bounds the loss when the next step's noise or rate was chosen after seeing earlier ones.

``composed_epsilon`` assumes that every parameter was fixed in advance. Where that is not so, the Renyi
divergences at one order, fixed before anything was released, still add up, and a run may go on for
as long as their sum stays below what the policy's epsilon allows at that order.
Source: Feldman & Zrnic 2021 (the Renyi filter), https://arxiv.org/abs/2008.11193
"""

from functools import lru_cache

from fedrec.errors import PrivacyError
from fedrec.privacy.renyi import allowed_renyi, epsilon_of_renyi, renyi_cost
from fedrec.privacy.steps import Steps, check_delta, check_whole, merged

__all__ = ["filter_epsilon", "renyi_cost", "renyi_order"]

_LARGEST_ORDER = 1 << 14


@lru_cache(maxsize=256)
def renyi_order(epsilon: float, delta: float) -> int:
    """The order at which a filter lets the most Gaussian steps through for (epsilon, delta).

    A Gaussian step costs rho·alpha, so the best order maximises the allowed divergence over alpha. It depends
    on the policy's two numbers alone, never on what was spent: that is what makes the filter valid.

    Args:
        epsilon: > 0, finite.
        delta: in (0, 1).

    Returns:
        A whole number >= 2.

    Raises:
        PrivacyError: an argument out of range, or an epsilon so small that no order allows anything.
    """
    check_delta(delta)
    if not 0.0 < epsilon < float("inf"):
        raise PrivacyError(f"max_epsilon={epsilon}: expected a finite number > 0")
    best = max(range(2, _LARGEST_ORDER + 1), key=lambda order: allowed_renyi(epsilon, order, delta) / order)
    if allowed_renyi(epsilon, best, delta) <= 0.0:
        raise PrivacyError(f"max_epsilon={epsilon}, max_delta={delta}: too small for adaptive parameters")
    return best


def filter_epsilon(spendings: tuple[Steps, ...], delta: float, *, order: int) -> float:
    """Epsilon of steps whose parameters may have been chosen adaptively.

    Args:
        delta: in (0, 1).
        order: from ``renyi_order``, the same for the whole life of a ledger.

    Returns:
        >= 0, an upper bound; 0 for no steps, infinity without noise. Never below ``composed_epsilon``.

    Raises:
        PrivacyError: an argument out of range or not finite.
    """
    check_delta(delta)
    check_whole("order", order, least=2)
    total = merged(spendings)
    return epsilon_of_renyi(renyi_cost(total, order), order, delta) if total else 0.0
