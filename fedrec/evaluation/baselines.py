"""Scorers that need no training loop: the rows that a federated ranker has to beat.

Each takes the histories it may look at and returns a ``Scorer`` over the same people. Those that pool everybody's
histories are references: they are not private, and a merchant could not have them.
"""

import numpy as np
from scipy.linalg.lapack import spotrf, spotri
from scipy.sparse import coo_array

from fedrec.data.histories import Histories
from fedrec.errors import DataError
from fedrec.evaluation.protocol import Scorer
from fedrec.model.transitions import Transitions, count_transitions

# Fixed on the last event but one of a tenth of the people of Online Retail: validation targets, never test targets.
_MARKOV_GAPS = (1.0, 0.5, 0.25)
_MARKOV_RECENT = 3
_MARKOV_DECAY = 0.3
_MARKOV_SHRINKAGE = 2.0
_NEIGHBOUR_RECENT = 10
_NEIGHBOUR_DECAY = 0.8
_NEIGHBOUR_SHARE = 0.5
_NEIGHBOURS = 200
_POPULARITY_SHARE = 1e-3
_EASE_ITEMS = 20_000


def popularity(train: Histories, *, items: int) -> Scorer:
    """Score an item by its share of everybody's events. Pooled, not private."""
    shares = _popularity_shares(train, items)
    return lambda people: np.repeat(shares[None].astype(np.float32), len(people), axis=0)  # (B, I)


def repeat(train: Histories, *, items: int) -> Scorer:
    """Score an item by how often the person took it, and where that ties by popularity (pooled, not private)."""
    tie_breaker = 0.5 * _popularity_shares(train, items)

    def score(people: np.ndarray) -> np.ndarray:
        counts = [np.bincount(train.of(int(person)), minlength=items) for person in people]
        return (np.stack(counts) + tie_breaker).astype(np.float32)  # (B, I)

    return score


def frozen_text(train: Histories, vectors: np.ndarray, *, window: int, decay: float) -> Scorer:
    """Score an item by its cosine with the decayed mean of a person's last item vectors. No pooling, no training.

    Args:
        train: histories, N people.
        vectors: unit rows, (I, K) float32.
        window: events averaged, the latest, >= 1.
        decay: weight of an event relative to the next later one, in (0, 1].

    Returns:
        A scorer with values in [-1, 1]; zeros for a person without a history.
    """

    def score(people: np.ndarray) -> np.ndarray:
        wanted = np.zeros((len(people), vectors.shape[1]), dtype=np.float32)  # (B, K)
        for row, person in enumerate(people):
            recent = train.of(int(person))[-window:]
            wanted[row] = _recency_weights(len(recent), decay).astype(np.float32) @ vectors[recent]
        lengths = np.linalg.norm(wanted, axis=1, keepdims=True)
        return (wanted / np.where(lengths > 0, lengths, 1.0)) @ vectors.T  # (B, I)

    return score


def markov_knn(train: Histories, *, items: int) -> Scorer:
    """Mix what follows a person's last items with what is bought by the same people. Pooled, not private: a reference.

    Both parts are probabilities over the catalogue, mixed with fixed shares, and a little popularity underneath.

    Source: first-order Markov chain over windows and item-kNN with cosine, as in Ludewig and Jannach 2018,
    Evaluation of session-based recommendation algorithms, sections 2.1 and 2.2, https://arxiv.org/abs/1803.09587
    """
    follows = count_transitions(train, items=items, gap_weights=_MARKOV_GAPS, shrinkage=_MARKOV_SHRINKAGE)
    together = _neighbours(train, items)
    shares = _popularity_shares(train, items)

    def score(people: np.ndarray) -> np.ndarray:
        scores = np.empty((len(people), items), dtype=np.float32)
        for row, person in enumerate(people):
            history = train.of(int(person))
            next_item = _shares(follows.after(history[-_MARKOV_RECENT:], decay=_MARKOV_DECAY))
            alike = _shares(together.after(history[-_NEIGHBOUR_RECENT:], decay=_NEIGHBOUR_DECAY))
            mixed = (1.0 - _NEIGHBOUR_SHARE) * next_item + _NEIGHBOUR_SHARE * alike
            scores[row] = mixed + _POPULARITY_SHARE * shares
        return scores

    return score


def ease(train: Histories, *, items: int, ridge: float, recent: int) -> Scorer:
    """Score by the linear model that best rebuilds everybody's items from their other items. Pooled, not private.

    Args:
        train: histories, N people; an item counts once a person.
        items: size of the catalogue, I <= 20,000: the model is an (I, I) matrix.
        ridge: weight of the squared weights, > 0; larger for less data.
        recent: events of a history that are looked up, the latest, >= 1.

    Raises:
        DataError: the catalogue is too large.

    Source: Steck 2019, Embarrassingly Shallow Autoencoders for Sparse Data, equation 8,
    https://arxiv.org/abs/1905.03375
    """
    if items > _EASE_ITEMS:
        raise DataError(f"EASE on {items} items: expected at most {_EASE_ITEMS}, its matrix grows with their square")
    weights = _ease_weights(train, items=items, ridge=ridge)

    def score(people: np.ndarray) -> np.ndarray:
        looked_up = [np.unique(train.of(int(person))[-recent:]) for person in people]
        return np.stack([weights[own].sum(axis=0) for own in looked_up])  # (B, I)

    return score


def _ease_weights(train: Histories, *, items: int, ridge: float) -> np.ndarray:
    """(I, I) float32 with a diagonal of zeros: -P / diag(P) for P the inverse of the regularised Gram matrix."""
    person_of = np.repeat(np.arange(len(train)), train.lengths)
    taken = coo_array((np.ones(len(train.items), np.float32), (person_of, train.items)), shape=(len(train), items))
    taken = taken.tocsr()  # adds up what was taken twice
    taken.data[:] = 1.0
    gram = (taken.T @ taken).toarray(order="F")
    np.fill_diagonal(gram, gram.diagonal() + ridge)
    factor, _ = spotrf(gram, lower=1, overwrite_a=1)
    inverse, _ = spotri(factor, lower=1, overwrite_c=1)  # its lower half
    inverse += np.tril(inverse, -1).T
    weights = inverse.T / -inverse.diagonal()  # P is symmetric; its transpose has contiguous rows
    np.fill_diagonal(weights, 0.0)
    return weights


def _neighbours(train: Histories, items: int) -> Transitions:
    """Cosine between items over the people who took them, as rows like a transition's: the nearest, itself left out."""
    person_of = np.repeat(np.arange(len(train)), train.lengths)
    taken = np.unique(person_of * items + train.items)  # each person's distinct items, by person
    taken_person, taken_item = np.divmod(taken, items)
    starts = np.searchsorted(taken_person, np.arange(len(train) + 1))
    people_of = np.bincount(taken_item, minlength=items).clip(min=1)
    columns, values = [], []
    for item, places in enumerate(_positions_by_item(taken_item, items)):
        people = taken_person[places]
        lengths = starts[people + 1] - starts[people]
        firsts = np.repeat(starts[people] - (np.cumsum(lengths) - lengths), lengths)
        both = np.bincount(taken_item[firsts + np.arange(lengths.sum())], minlength=items)
        both[item] = 0
        cosines = both / np.sqrt(people_of * float(people_of[item]))
        nearest = _largest(cosines, _NEIGHBOURS)
        columns.append(nearest.astype(np.int32))
        values.append(cosines[nearest].astype(np.float32))
    offsets = np.concatenate([[0], np.cumsum([len(nearest) for nearest in columns])])
    return Transitions(offsets, np.concatenate(columns), np.concatenate(values))


def _largest(row: np.ndarray, most: int) -> np.ndarray:
    """Places of the largest values above zero, ascending, at most ``most``."""
    return np.sort(np.argsort(-row, kind="stable")[: min(most, np.count_nonzero(row))])


def _positions_by_item(sequence: np.ndarray, items: int) -> list[np.ndarray]:
    """For each item, the positions at which ``sequence`` holds it, ascending."""
    order = np.argsort(sequence, kind="stable")
    return np.split(order, np.searchsorted(sequence[order], np.arange(1, items)))


def _recency_weights(length: int, decay: float) -> np.ndarray:
    """Weights of a run of events, the last one 1."""
    return decay ** np.arange(length - 1, -1, -1, dtype=np.float64)


def _shares(scores: np.ndarray) -> np.ndarray:
    """Scores >= 0, (I,), scaled to sum to 1; all zeros stay."""
    total = scores.sum()
    return scores / total if total > 0 else scores


def _popularity_shares(train: Histories, items: int) -> np.ndarray:
    return _shares(np.bincount(train.items, minlength=items).astype(np.float64))
