"""The first of two stages: few items that are sure to hold the best ones.

An item that no pair and no memory speaks of scores ``<state, vector(item)> + shared(item)``, and that is one inner
product of a longer vector. So the candidates are the best items by this inner product, and every item that a pair or
the memory does speak of. With an exact index the best items of the whole catalogue are among them, always: an item
outside is beaten by as many as are wanted, for what is added to those can lower only the ones counted in ``lowered``.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from clients.serving.ranking import best_of
from clients.serving.scoring import ScoreTerms


class Index(Protocol):
    """Finds items by ``<state, vector(item)> + shared(item)``: all of them compared, or most."""

    def best(self, state: np.ndarray, *, most: int, allowed: np.ndarray) -> np.ndarray:
        """Return up to ``most`` allowed items, best first, (n,); ``state`` is (K,), ``allowed`` (I,) bool."""


@dataclass(frozen=True, eq=False)
class ExactIndex:
    """Compares every item.

    Attributes:
        vectors: the item table, (I, K) float32.
        shared: what is the same for everybody, (I,) float32.
    """

    vectors: np.ndarray
    shared: np.ndarray

    def best(self, state: np.ndarray, *, most: int, allowed: np.ndarray) -> np.ndarray:
        return best_of(np.where(allowed, self.vectors @ state + self.shared, -np.inf), most)


def candidates(index: Index, terms: ScoreTerms, *, most: int, allowed: np.ndarray) -> np.ndarray:
    """Return the items to rank, ascending, (C,): among them the ``most`` best of all that are allowed.

    Args:
        index: over the item table and what the terms share.
        terms: of one past.
        most: items wanted in the end, >= 1.
        allowed: (I,) bool.
    """
    state = np.sum(list(terms.states.values()), axis=0)
    reached, place = np.unique(
        np.concatenate([items for items, _ in terms.reached.values()] or [np.zeros(0, int)]), return_inverse=True
    )
    added = np.bincount(
        place,
        weights=np.concatenate([logits for _, logits in terms.reached.values()] or [np.zeros(0)]),
        minlength=len(reached),
    )
    lowered = int(np.count_nonzero(allowed[reached] & (added < 0)))
    found = index.best(state, most=most + lowered, allowed=allowed)
    return np.union1d(found, reached[allowed[reached]])
