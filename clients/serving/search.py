"""Search of a catalogue by words and by meaning, ranked for a person where their score is given. Nothing is logged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from clients.serving.dense import DenseIndex
from clients.serving.queries import clean_query
from fedrec.config_search import SearchConfig
from fedrec.errors import ConfigError
from fedrec.model.learned_query import LearnedQuery

WORDS, MEANING, PERSON = "words", "meaning", "person"


class Backend(Protocol):
    """A full-text engine: SQLite's here (``FullTextIndex``), another one's behind the same methods."""

    def search(self, query: str, *, most: int, allowed: np.ndarray | None = None) -> list[tuple[int, float]]:
        """Items that have words of ``query`` and their scores, > 0, best first.

        Args:
            query: one line of text, never a command of the engine.
            most: items, at most, >= 1.
            allowed: (I,) bool; other items are not found. All when absent.
        """
        ...

    def spelled(self, query: str) -> str:
        """The query with unknown words as the likeliest known ones, for an encoder; itself when there are none."""
        ...


@dataclass(frozen=True)
class Hit:
    """A found item.

    Attributes:
        item: its position in the catalogue.
        score: >= 0, the sum of the parts; comparable within one list only.
        parts: what it was found by, and what that adds: ``words`` where it has words of the query, ``meaning`` where an
            encoder read both, ``person`` where a person's score was given.
    """

    item: int
    score: float
    parts: Mapping[str, float]


class Searcher:
    """Mixes what words, meaning and a person's own score say of an item. Threads may share one.

    Each part is brought to [0, 1] and weighed: BM25 over its best hit; cosine, and the person's score, from the least
    to the greatest. Without an encoder only items with words of the query are found.

    Source: Bruch, Gai and Ingber 2023, An analysis of fusion functions for hybrid retrieval (convex
    combination of min-max scaled scores), https://arxiv.org/abs/2210.11934
    """

    def __init__(self, backend: Backend, dense: DenseIndex | None, config: SearchConfig | None = None) -> None:
        """Search through ``backend`` and, where there is one, ``dense``, of the same I items."""
        self._backend, self._dense, self._config = backend, dense, config or SearchConfig()
        self._mix = mix_of(dense, self._config)

    def search(
        self,
        query: str,
        *,
        k: int,
        allowed: np.ndarray | None = None,
        user_scores: np.ndarray | None = None,
        personal: float | None = None,
    ) -> list[Hit]:
        """Find items.

        Args:
            query: anything a person can type; beyond 200 characters it is cut.
            k: items, at most, >= 1.
            allowed: (I,) bool; other items are not found. All when absent.
            user_scores: (I,) float32, the person's own score of each item. It orders what the query found, and finds
                nothing by itself. Where it is not finite it counts as the least.
            personal: weight of ``user_scores``, >= 0; the setting ``person`` when absent.

        Returns:
            Best first, equal scores by item. Misspelt and unknown words are answered by the nearest known ones and by
            meaning; empty where the query has no letter or digit, and where nothing is left to find.

        Raises:
            ConfigError: ``k`` or ``personal`` is out of range.
        """
        weight = self._config.person if personal is None else personal
        if k < 1:
            raise ConfigError(f"k={k}: expected >= 1")
        if not (weight >= 0 and np.isfinite(weight)):
            raise ConfigError(f"personal={weight}: expected a finite number >= 0")
        line = clean_query(query, longest=self._config.longest_query)
        if not any(letter.isalnum() for letter in line):
            return []
        words = self._words(line, k=k, allowed=allowed)
        near = self._nearness(line, allowed=allowed)
        items = self._candidates(words, near, k=k)
        parts: dict[str, dict[int, float]] = {WORDS: words}
        if near is not None:
            parts[MEANING] = _by_item(items, self._mix[1] * near[items])
        if user_scores is not None:
            parts[PERSON] = _by_item(items, weight * scaled_to_one(user_scores[items].astype(np.float64)))
        hits = [_hit(int(item), parts) for item in items]
        return sorted(hits, key=lambda hit: (-hit.score, hit.item))[:k]

    @property
    def learned(self) -> LearnedQuery | None:
        """What search learned, if anything."""
        return None if self._dense is None else self._dense.learned

    def _words(self, query: str, *, k: int, allowed: np.ndarray | None) -> dict[int, float]:
        """Weighed BM25 of the items that have words of the query. Without an encoder it stands for the meaning too."""
        found = self._backend.search(query, most=max(k, self._config.word_hits), allowed=allowed)
        weight = sum(self._mix) if self._dense is None else self._mix[0]
        best = max((score for _, score in found), default=0.0)
        return {item: weight * score / best for item, score in found}

    def _nearness(self, query: str, *, allowed: np.ndarray | None) -> np.ndarray | None:
        """Cosine of the allowed items, scaled to [0, 1], (I,); -1 for the others. None without an encoder."""
        if self._dense is None:
            return None
        # A word that no item has may be misspelt, or just another word: the reading that fits an item better counts.
        readings = [self._dense.scores(text) for text in dict.fromkeys((query, self._backend.spelled(query)))]
        if not (understood := [scores for scores in readings if scores is not None]):
            return None
        scores = np.maximum.reduce(understood)  # (I,)
        near = np.full(len(scores), -1.0)
        is_asked = np.ones(len(scores), dtype=bool) if allowed is None else allowed
        near[is_asked] = scaled_to_one(scores[is_asked].astype(np.float64))
        return near

    def _candidates(self, words: Mapping[int, float], near: np.ndarray | None, *, k: int) -> np.ndarray:
        """Items that have words of the query, and those nearest by meaning; none of the others can reach the list."""
        items = np.fromiter(words, dtype=np.int64, count=len(words))
        if near is not None:
            nearest = _largest(near, max(k, self._config.meaning_hits))
            items = np.union1d(items, nearest[near[nearest] >= 0])
        return np.sort(items)


def mix_of(dense: DenseIndex | None, config: SearchConfig) -> tuple[float, float]:
    """How much words and meaning count: as was learned, or else as the settings say."""
    if dense is not None and dense.learned is not None:
        return dense.learned.words, dense.learned.meaning
    beside_hashing = dense is not None and dense.reads_letters_only
    return config.words_beside_hashing if beside_hashing else config.words, config.meaning


def _largest(values: np.ndarray, most: int) -> np.ndarray:
    """Places of the largest, the largest first, of equals the first; without sorting a million."""
    least = np.partition(values, -most)[-most] if most < len(values) else -np.inf
    places = np.flatnonzero(values >= least)
    return places[np.argsort(-values[places], kind="stable")][:most]


def _by_item(items: np.ndarray, values: np.ndarray) -> dict[int, float]:
    return dict(zip(items.tolist(), values.tolist(), strict=True))


def _hit(item: int, parts: Mapping[str, Mapping[int, float]]) -> Hit:
    own = {name: part[item] for name, part in parts.items() if item in part}
    return Hit(item, sum(own.values()), own)


def scaled_to_one(scores: np.ndarray) -> np.ndarray:
    """Scores (N,) moved and stretched to [0, 1], the least finite one to 0; zeros where all are equal or not finite."""
    is_finite = np.isfinite(scores)
    if not is_finite.any():
        return np.zeros_like(scores)
    least, spread = scores[is_finite].min(), np.ptp(scores[is_finite])
    return np.where(is_finite, (scores - least) / spread, 0.0) if spread > 0 else np.zeros_like(scores)
