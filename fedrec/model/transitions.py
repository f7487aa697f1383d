"""What tends to follow what: a sparse table of transitions counted from histories, and how to read it.

Counted from one merchant's own people it is that merchant's memory and never leaves it. Counted from
everyone it is a reference that no merchant could have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedrec.data.histories import Histories


@dataclass(frozen=True, eq=False)
class Transitions:
    """A sparse (I, I) matrix; row i is ``columns`` and ``values`` from ``offsets[i]`` to ``offsets[i + 1]``.

    Attributes:
        offsets: (I+1,) int64.
        columns: (N,) int32, ascending within a row.
        values: (N,) float32, in (0, 1); a row sums to below 1, the less the less often its item was seen.
    """

    offsets: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @property
    def items(self) -> int:
        """Size of the catalogue, I."""
        return len(self.offsets) - 1

    def after(self, recent: np.ndarray, *, decay: float) -> np.ndarray:
        """Mix the rows of a person's recent items, each weighted ``decay ** age``: (I,) float64, sums to at most 1."""
        mixed = np.zeros(self.items)
        items, shares = self.following(recent, decay=decay)
        mixed[items] = shares
        return mixed

    def following(self, recent: np.ndarray, *, decay: float) -> tuple[np.ndarray, np.ndarray]:
        """The same, of the C items alone that ever followed one of the recent: ascending, and (C,) float64."""
        weights = decay ** np.arange(len(recent) - 1, -1, -1, dtype=np.float64)
        weights /= max(weights.sum(), 1e-12)
        rows = [slice(self.offsets[item], self.offsets[item + 1]) for item in recent]
        shares = [weight * self.values[row] for weight, row in zip(weights, rows, strict=True)]
        items, place = np.unique(
            np.concatenate([self.columns[:0], *(self.columns[row] for row in rows)]), return_inverse=True
        )
        return items, np.bincount(place, weights=np.concatenate([weights[:0], *shares]), minlength=len(items))


def count_transitions(
    histories: Histories, *, items: int, gap_weights: Sequence[float], shrinkage: float
) -> Transitions:
    """Count how often each item came 1, 2, ... events after another of the same person.

    Args:
        histories: whose events are counted.
        items: size of the catalogue, I.
        gap_weights: weight of a pair that is 1, 2, ... events apart.
        shrinkage: pseudo-counts of nothing added to each row, >= 0, so that a row seen once says little.
    """
    first, then, counts = count_pairs(histories, items=items, gap_weights=gap_weights)
    return transition_table(first, then, counts, items=items, shrinkage=shrinkage)


def gap_weights_of(window: int) -> list[float]:
    """Weight 1/g for a pair that is g events apart, up to ``window`` of them."""
    return [1 / gap for gap in range(1, window + 1)]


def count_pairs(
    histories: Histories, *, items: int, gap_weights: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count how often each item came 1, 2, ... events after another of the same person, pair by pair.

    Returns:
        The earlier item, the later one (C,) int32 each, and the weighted count (C,) float64, > 0; each pair once,
        sorted by both.
    """
    person_of = np.repeat(np.arange(len(histories)), histories.lengths)
    sequence = histories.items.astype(np.int64)
    keys, weights = [], []
    for gap, weight in enumerate(gap_weights, start=1):
        is_pair = person_of[gap:] == person_of[:-gap]
        keys.append(sequence[:-gap][is_pair] * items + sequence[gap:][is_pair])
        weights.append(np.full(int(is_pair.sum()), weight))
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    counts = np.bincount(place, weights=np.concatenate(weights), minlength=len(pairs))
    return (pairs // items).astype(np.int32), (pairs % items).astype(np.int32), counts


def transition_table(
    first: np.ndarray, then: np.ndarray, counts: np.ndarray, *, items: int, shrinkage: float
) -> Transitions:
    """Turn counts of pairs into rows of shares.

    Args:
        first, then: (C,) item indices, each pair once, sorted by both.
        counts: (C,), >= 0; a pair that counts nothing is left out.
        items: size of the catalogue, I.
        shrinkage: pseudo-counts of nothing added to each row, >= 0.
    """
    is_there = counts > 0
    first, then, counts = first[is_there], then[is_there], counts[is_there]
    totals = np.bincount(first, weights=counts, minlength=items) + shrinkage
    offsets = np.searchsorted(first, np.arange(items + 1))
    return Transitions(offsets, then.astype(np.int32), (counts / totals[first]).astype(np.float32))
