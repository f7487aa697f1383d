"""What each person adds to the statistics of their client. Of a client's people it is sensitive: summed and noised
before anything leaves. Of public people it says beforehand what a release can be expected to show.

A person's row depends on their own history and on public things alone, and is as long as anybody else's however much
they bought: that is what bounds the difference that one person can make.
"""

import math
from collections.abc import Iterator

import numpy as np

from fedrec.data.histories import Histories
from fedrec.model.statistics import PAIRS, POPULARITY, Counting
from fedrec.privacy.statistics import Row


def person_statistics(histories: Histories, counting: Counting) -> Iterator[Row]:
    """Count everyone, one after the other.

    Args:
        histories: one row a person. Sensitive.
        counting: the public pairs that are counted, and how; any other pair of a history counts nothing.

    Yields:
        For each person the places (K,) int64, ascending, and the values (K,) float64 of a sparse row over
        ``counting.schema``: each block of norm sqrt(share), or nothing where the person has nothing in it.
    """
    pairs, spec = counting
    keys = pairs.first.astype(np.int64) * pairs.items + pairs.then  # ascending, as the pairs are sorted
    count = {
        POPULARITY: lambda history: np.unique(history.astype(np.int64), return_counts=True),
        PAIRS: lambda history: _pair_counts(history.astype(np.int64), keys, pairs.items, spec.gap_weights),
    }
    for person in range(len(histories)):
        places, values, start = [], [], 0
        for array in counting.schema:
            counted, weights = count[array.name](histories.of(person))
            places.append(start + counted)
            length = float(np.linalg.norm(weights))
            values.append(weights * (math.sqrt(spec.shares[array.name]) / length) if length else weights)
            start += array.shape[0]
        yield np.concatenate(places), np.concatenate(values)


def _pair_counts(
    history: np.ndarray, keys: np.ndarray, items: int, gap_weights: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted counts of the public pairs (``first * items + then``, ascending) in one history, by place."""
    found, weights = [], []
    for gap, weight in enumerate(gap_weights, start=1):
        found.append(history[:-gap] * items + history[gap:])
        weights.append(np.full(len(found[-1]), weight))
    pairs, place = np.unique(np.concatenate(found), return_inverse=True)
    counts = np.bincount(place, weights=np.concatenate(weights), minlength=len(pairs))
    places = np.searchsorted(keys, pairs)
    is_public = places < len(keys)
    is_public[is_public] = keys[places[is_public]] == pairs[is_public]
    return places[is_public], counts[is_public]
