"""Titles that are nearly the same text: one product listed twice, most likely."""

import re

import numpy as np

_BUCKETS = 512
_BLOCK = 1024
_WORD = re.compile(r"[^\W_]+")
_TAG = re.compile(r"<[^>]*>")


def near_duplicate_titles(
    titles: list[str], *, cosine: float, max_items: int
) -> tuple[list[tuple[int, int, float]], bool]:
    """Pairs of titles with the same words, or whose letter trigrams agree to more than ``cosine``.

    Titles that differ in a number are taken for variants of one product (a size, a pack), not duplicates.

    Args:
        titles: (I,); blank ones are skipped.
        cosine: in (0, 1).
        max_items: above it only titles with the same words are found: the trigrams cost I * I.

    Returns:
        (earlier, later, similarity) sorted by similarity, each later title at most once; and whether all were compared.
    """
    words = [_WORD.findall(_TAG.sub(" ", title).lower()) for title in titles]
    pairs: dict[int, tuple[int, float]] = {}
    first_with: dict[tuple[str, ...], int] = {}
    for position, tokens in enumerate(words):
        if tokens:
            first = first_with.setdefault(tuple(sorted(tokens)), position)
            if first != position:
                pairs[position] = (first, 1.0)
    are_all_compared = len(first_with) <= max_items
    if are_all_compared:
        distinct = np.array(sorted(first_with.values()), dtype=np.int64)
        pairs |= _similar(distinct, words, cosine=cosine)
    found = [(earlier, later, similarity) for later, (earlier, similarity) in pairs.items()]
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1])), are_all_compared


def _similar(positions: np.ndarray, words: list[list[str]], *, cosine: float) -> dict[int, tuple[int, float]]:
    """Later title -> its most similar earlier one, among ``positions``."""
    vectors = _trigram_vectors([" ".join(words[position]) for position in positions])
    found: dict[int, tuple[int, float]] = {}
    for start in range(0, len(positions), _BLOCK):
        block = vectors[start : start + _BLOCK] @ vectors[: start + _BLOCK].T  # (block, earlier)
        rows, columns = np.nonzero(block > cosine)
        is_earlier = columns < rows + start
        for row, column in zip(rows[is_earlier], columns[is_earlier], strict=True):
            earlier, later = int(positions[column]), int(positions[row + start])
            similarity = min(float(block[row, column]), 1.0)
            is_better = later not in found or found[later][1] < similarity
            if is_better and _numbers(words[earlier]) == _numbers(words[later]):
                found[later] = (earlier, round(similarity, 4))
    return found


def _trigram_vectors(texts: list[str]) -> np.ndarray:
    """(I, buckets) float32 unit rows: counts of hashed three-byte pieces, with hashed signs."""
    vectors = np.zeros((len(texts), _BUCKETS), dtype=np.float32)
    for row, text in enumerate(texts):
        letters = np.frombuffer(f"  {text}  ".encode(), dtype=np.uint8).astype(np.uint64)
        pieces = (letters[:-2] << np.uint64(16)) | (letters[1:-1] << np.uint64(8)) | letters[2:]
        hashes = (pieces * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)  # Fibonacci hashing: wraps modulo 2^64
        buckets = (hashes % np.uint64(_BUCKETS)).astype(np.int64)
        signs = 1.0 - 2.0 * ((hashes >> np.uint64(20)) & np.uint64(1)).astype(np.float64)
        vectors[row] = np.bincount(buckets, weights=signs, minlength=_BUCKETS)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)


def _numbers(tokens: list[str]) -> list[str]:
    """The words that hold a digit, sorted."""
    return sorted(token for token in tokens if any(letter.isdigit() for letter in token))
