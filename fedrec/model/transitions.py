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
        weights = decay ** np.arange(len(recent) - 1, -1, -1, dtype=np.float64)
        mixed = np.zeros(self.items)
        for item, weight in zip(recent, weights / max(weights.sum(), 1e-12), strict=True):
            row = slice(self.offsets[item], self.offsets[item + 1])
            mixed[self.columns[row]] += weight * self.values[row]
        return mixed


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
    person_of = np.repeat(np.arange(len(histories)), histories.lengths)
    sequence = histories.items.astype(np.int64)
    keys, weights = [], []
    for gap, weight in enumerate(gap_weights, start=1):
        is_pair = person_of[gap:] == person_of[:-gap]
        keys.append(sequence[:-gap][is_pair] * items + sequence[gap:][is_pair])
        weights.append(np.full(int(is_pair.sum()), weight))
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    counts = np.bincount(place, weights=np.concatenate(weights), minlength=len(pairs))
    rows = pairs // items
    totals = np.bincount(rows, weights=counts, minlength=items) + shrinkage
    offsets = np.searchsorted(rows, np.arange(items + 1))
    return Transitions(offsets, (pairs % items).astype(np.int32), (counts / totals[rows]).astype(np.float32))
