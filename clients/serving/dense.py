"""Search by meaning: a query through the encoder that read the catalogue, then cosine with every item. No training."""

import threading
from collections.abc import Sequence

import numpy as np

from fedrec.errors import DataError
from fedrec.model.encoder import HashingEncoder, TextEncoder
from fedrec.model.learned_query import LearnedQuery


class DenseIndex:
    """Compares a query with every item, exactly. Threads may share one.

    The vectors are compared as the encoder gives them: whitening, which helps the ranker to tell what is bought
    together, blurs what a short query names (``docs/search.md``).
    """

    def __init__(self, vectors: np.ndarray, encoder: TextEncoder, learned: LearnedQuery | None = None) -> None:
        """Prepare the items.

        Args:
            vectors: (I, E) of ``encoder``, as ``fedrec.model.items.catalogue_vectors`` gives them.
            encoder: of dimension E.
            learned: what search learned with this encoder, if anything: turns each query's vector.

        Raises:
            DataError: the vectors are not of this encoder's dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != encoder.dimension:
            raise DataError(
                f"item vectors {vectors.shape}: encoder {encoder.name} gives {encoder.dimension} numbers an item; "
                "encode the catalogue with it"
            )
        self.encoder, self.learned, self.vectors = encoder, learned, unit_rows(vectors)  # (I, E)
        self._lock = threading.Lock()  # a tokenizer serves one thread at a time

    @property
    def reads_letters_only(self) -> bool:
        """Whether the encoder knows no synonyms, as the built-in one."""
        return self.encoder.name == HashingEncoder.name

    def scores(self, query: str) -> np.ndarray | None:
        """Cosine of the query with each item, (I,) float32 in [-1, 1]; None for one that the encoder cannot read."""
        (vector,) = self.encode([query])  # (E,)
        if self.learned is not None:
            vector = self.learned.apply(vector)
        return self.vectors @ vector if vector.any() else None

    def encode(self, queries: Sequence[str]) -> np.ndarray:
        """Vectors of queries, (N, E) float32, as the encoder gives them; zeros for one that it cannot read."""
        with self._lock:
            return self.encoder.encode(queries)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, (N, E) float32; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
