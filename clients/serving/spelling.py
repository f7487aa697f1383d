"""The known words nearest to one that nobody has written: one slip of the finger, two in a long word."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

import numpy as np

_SHORT = 3  # letters; of shorter words every slip is another word, and of these every one but two letters swapped
_LONG = 8  # letters from which two slips are forgiven
_BUCKETS = 32
_MOST_LETTERS = 40  # of a word; longer ones are numbers or noise


class Vocabulary:
    """The words of a catalogue and how many of its items have each.

    Source: Bartolini, Ciaccia and Patella 2002, String matching with metric trees using an approximate distance
    (the bag distance, never above the edit distance), https://doi.org/10.1007/3-540-45735-6_24
    """

    def __init__(self, items_with: Mapping[str, int]) -> None:
        """Take the words, V of them, with their items."""
        self._words = sorted(items_with)
        self._items = [items_with[word] for word in self._words]
        self._lengths = np.array([len(word) for word in self._words], dtype=np.int32)  # (V,)
        self._bags = np.stack([_bag(word) for word in self._words]) if self._words else np.zeros((0, _BUCKETS), np.int8)

    def __contains__(self, word: str) -> bool:
        at = bisect_left(self._words, word)
        return at < len(self._words) and self._words[at] == word

    def completed(self, prefix: str) -> str | None:
        """The word that begins so and that most items have, of several the first by alphabet; None without one."""
        begin = at = bisect_left(self._words, prefix)
        while at < len(self._words) and self._words[at].startswith(prefix):
            at += 1
        return self._words[max(range(begin, at), key=self._items.__getitem__)] if begin < at else None

    def nearest(self, word: str, *, most: int) -> list[str]:
        """Known words at the smallest edit distance: 1, or 2 from 8 letters on; two neighbours swapped are one edit.

        Args:
            word: not in the vocabulary.
            most: of these words, at most.

        Returns:
            The likeliest first: those of the same letters, then those that more items have, then by alphabet. A word of
            3 letters has only those of the same letters. None for a shorter word, which is near too many, and for one
            with a digit: the product with the next number is another product.
        """
        if not _SHORT <= len(word) <= _MOST_LETTERS or not word.isalpha():
            return []
        reach = 2 if len(word) >= _LONG else 1
        close = np.flatnonzero(np.abs(self._lengths - len(word)) <= reach)
        difference = self._bags[close] - _bag(word)  # (V', 32)
        bag_distance = np.maximum(difference.clip(min=0).sum(1), (-difference).clip(min=0).sum(1))
        is_candidate = bag_distance <= (0 if len(word) == _SHORT else reach)
        found = []
        for at, bag in zip(close[is_candidate], bag_distance[is_candidate], strict=True):
            distance = edit_distance(word, self._words[at])
            if distance <= reach:
                found.append((distance, int(bag), -self._items[at], self._words[at]))
        found.sort()
        return [entry[-1] for entry in found if entry[0] == found[0][0]][:most]


def edit_distance(first: str, second: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.

    Source: Damerau 1964, A technique for computer detection and correction of spelling errors,
    https://doi.org/10.1145/363958.363994; as optimal string alignment, where no letter is edited twice.
    """
    before, row = [0] * (len(second) + 1), list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        older, before, row = before, row, [i]
        for j, other in enumerate(second, start=1):
            best = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                best = min(best, older[j - 2] + 1)
            row.append(best)
    return row[-1]


def _bag(word: str) -> np.ndarray:
    """How often each letter occurs, letters shared out over 32 buckets, (32,) int8."""
    counts = np.zeros(_BUCKETS, dtype=np.int8)
    for letter, count in Counter(word[:_MOST_LETTERS]).items():
        counts[ord(letter) % _BUCKETS] += count
    return counts
