"""The second stage: who may be offered, in which order, and how different from one another.

Scores that differ by less than rounding are equal, and of equals the first in the catalogue comes first.
"""

from collections.abc import Set
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.errors import ConfigError

CATEGORY, PRICE = "category", "price"  # columns of a catalogue that may have them
_DIGITS = 5  # of a score


@dataclass(frozen=True)
class Filters:
    """What may be offered; a filter that is None lets everything pass.

    Attributes:
        category: exactly this one, in any case.
        min_price: at least, in the catalogue's currency; an item without a price does not pass.
        max_price: at most; likewise.
        in_stock: ids of the items there are.
        hide_bought: nothing that the person has bought.
    """

    category: str | None = None
    min_price: float | None = None
    max_price: float | None = None
    in_stock: Set[str] | None = None
    hide_bought: bool = False


def allowed_items(catalogue: Catalogue, filters: Filters) -> np.ndarray:
    """Mark the items that pass, (I,) bool; what the person has bought is not looked at here.

    Raises:
        ConfigError: the catalogue has no such column or category, or the bounds are no range.
    """
    allowed = np.ones(len(catalogue), dtype=bool)
    if filters.category is not None:
        allowed &= _in_category(catalogue, filters.category)
    low, high = filters.min_price, filters.max_price
    if low is not None or high is not None:
        low, high = 0.0 if low is None else low, np.inf if high is None else high
        if not 0 <= low <= high:  # false for NaN too
            raise ConfigError(f"price from {low:g} to {high:g}: expected a range of numbers >= 0")
        prices = _column(catalogue, PRICE).cast(pl.Float64).fill_null(np.nan).to_numpy()
        allowed &= (prices >= low) & (prices <= high)  # NaN does not pass
    if filters.in_stock is not None:
        is_there = np.zeros(len(catalogue), dtype=bool)
        is_there[[catalogue.index[item] for item in filters.in_stock if item in catalogue.index]] = True
        allowed &= is_there
    return allowed


def best_of(scores: np.ndarray, most: int) -> np.ndarray:
    """Return the places of the ``most`` best scores, best first; never one of minus infinity.

    Args:
        scores: (C,), finite or minus infinity.
        most: >= 0.
    """
    costs = -np.round(scores.astype(np.float64), _DIGITS)
    places = np.flatnonzero(np.isfinite(costs))
    if most < len(places):
        limit = np.partition(costs[places], most)[most]
        places = places[costs[places] <= limit]
    return places[np.argsort(costs[places], kind="stable")][:most]


def diversified(scores: np.ndarray, vectors: np.ndarray, *, k: int, diversity: float) -> np.ndarray:
    """Choose items one by one, each good and unlike those chosen before (maximal marginal relevance).

    Args:
        scores: (C,), best first.
        vectors: of the same items, (C, K), unit rows.
        k: items wanted, >= 1.
        diversity: 0 for the order of the scores, 1 for likeness alone.

    Returns:
        Places of min(k, C) items, in the order in which they were chosen; the first is the best.

    Raises:
        ConfigError: ``diversity`` is not in [0, 1].

    Source: Carbonell and Goldstein 1998, section 2, doi 10.1145/290941.291025: the next item is that of the largest
    ``lambda Sim1(item, query) - (1 - lambda) max Sim2(item, chosen)``. Here lambda is ``1 - diversity``, Sim1 the score
    scaled to [0, 1] over the C items, Sim2 the cosine of the item vectors.
    """
    if not 0 <= diversity <= 1:
        raise ConfigError(f"diversity={diversity:g}: expected 0 to 1")
    if not diversity or len(scores) < 2:
        return np.arange(min(k, len(scores)))
    relevance = (scores - scores[-1]) / max(scores[0] - scores[-1], 1e-12)
    chosen, likeness = [0], vectors @ vectors[0]
    while len(chosen) < min(k, len(scores)):
        marginal = (1 - diversity) * relevance - diversity * likeness
        marginal[chosen] = -np.inf
        chosen.append(int(np.argmax(marginal)))
        likeness = np.maximum(likeness, vectors @ vectors[chosen[-1]])
    return np.array(chosen)


def _in_category(catalogue: Catalogue, category: str) -> np.ndarray:
    column, is_there = _column(catalogue, CATEGORY), np.zeros(len(catalogue), dtype=bool)
    is_there[catalogue.by_category.get(category.strip().lower(), [])] = True
    if not category.strip() or not is_there.any():
        names = column.cast(pl.String).fill_null("").str.strip_chars().unique(maintain_order=True).to_list()
        near = get_close_matches(category, names, n=3, cutoff=0.4)
        known = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise ConfigError(f"category {category!r}: no item of the catalogue has it{known}")
    return is_there


def _column(catalogue: Catalogue, name: str) -> pl.Series:
    if name not in catalogue.attributes.columns:
        raise ConfigError(f"{name}: the catalogue has no such column, so leave this filter out")
    return catalogue.attributes[name]
