"""How often each item is bought, and when: counts of purchases, an item once a visit.

A visit is every event of a person with one timestamp: an invoice, or a single event where the data know no baskets.
"""

import numpy as np

from fedrec.data.histories import Histories

DAY_S = 86_400


def visits(histories: Histories) -> np.ndarray:
    """Number the visits of everyone in one go: (E,) int64, ascending, a new number at each new person or time."""
    is_new = np.ones(len(histories.items), dtype=bool)
    is_new[1:] = histories.timestamps[1:] != histories.timestamps[:-1]
    starts = histories.offsets[:-1]
    is_new[starts[starts < len(is_new)]] = True
    return np.cumsum(is_new) - 1


def popularity_counts(histories: Histories, *, items: int, half_life_days: float | None) -> np.ndarray:
    """Count purchases, an old one for less.

    Args:
        histories: whose purchases; an item counts once a visit.
        items: size of the catalogue, I.
        half_life_days: age at which a purchase counts half, before the latest of all; None counts all alike, and so
            in effect do timestamps that are positions.

    Returns:
        (I,) float64, >= 0; zeros for no events.
    """
    if not len(histories.items):
        return np.zeros(items)
    _, first = np.unique(visits(histories) * items + histories.items, return_index=True)
    weights = None
    if half_life_days is not None:
        days = (histories.timestamps.max() - histories.timestamps[first]) / DAY_S
        weights = 0.5 ** (days / half_life_days)
    return np.bincount(histories.items[first], weights=weights, minlength=items).astype(np.float64)


def popularity_shares(histories: Histories, *, items: int, half_life_days: float | None) -> np.ndarray:
    """``popularity_counts`` scaled to sum to 1, (I,) float64; zeros for no events."""
    counts = popularity_counts(histories, items=items, half_life_days=half_life_days)
    return counts / max(counts.sum(), 1e-12)
