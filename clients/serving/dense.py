"""Search by meaning: a query through the encoder that read the catalogue, then cosine with every item. No training."""

import threading

import numpy as np

from fedrec.errors import DataError
from fedrec.model.encoder import HashingEncoder, TextEncoder


class DenseIndex:
    """Compares a query with every item, exactly. Threads may share one.

    The vectors are compared as the encoder gives them: whitening, which helps the ranker to tell what is bought
    together, blurs what a short query names (``docs/search.md``).
    """

    def __init__(self, vectors: np.ndarray, encoder: TextEncoder) -> None:
        """Prepare the items.

        Args:
            vectors: (I, E) of ``encoder``, as ``fedrec.model.items.catalogue_vectors`` gives them.
            encoder: of dimension E.

        Raises:
            DataError: the vectors are not of this encoder's dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != encoder.dimension:
            raise DataError(
                f"item vectors {vectors.shape}: encoder {encoder.name} gives {encoder.dimension} numbers an item; "
                "encode the catalogue with it"
            )
        self._encoder, self._items = encoder, unit_rows(vectors)  # (I, E)
        self._lock = threading.Lock()  # a tokenizer serves one thread at a time

    @property
    def reads_letters_only(self) -> bool:
        """Whether the encoder knows no synonyms, as the built-in one."""
        return self._encoder.name == HashingEncoder.name

    def scores(self, query: str) -> np.ndarray | None:
        """Cosine of the query with each item, (I,) float32 in [-1, 1]; None for one that the encoder cannot read."""
        with self._lock:
            vector = self._encoder.encode([query])  # (1, E)
        return self._items @ vector[0] if vector.any() else None


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, (N, E) float32; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
