"""The first stage for a catalogue too large to compare whole: most of the best items, and far fewer inner products.

Two short lists are compared exactly. One holds the items of the largest ``<state, vector(item)> + shared(item)``, by
codes of one byte a number, that faiss finds in the lists of items that lie in the state's direction. The other holds
the items of the largest ``shared``, wherever they lie: what is in neither is behind as many in both. The lists know
the vectors alone, so they are made once for a base; a memory that is counted anew only fills them again.

Sources: Jegou, Douze and Schmid 2011, Product quantization for nearest neighbor search, section IV (inverted lists),
https://doi.org/10.1109/TPAMI.2010.57; Fagin, Lotem and Naor 2003, Optimal aggregation algorithms for middleware (the
best of a sum from the best of each summand), https://doi.org/10.1016/S0022-0000(03)00026-6
"""

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clients.serving.ranking import best_of
from fedrec.config_serving import RecallConfig
from fedrec.data.tables import write_atomically
from fedrec.errors import ConfigError

if TYPE_CHECKING:
    import faiss

_SAMPLE = 64  # items a list that its centre is learned from
_ROUNDS = 8
_BLOCK = 50_000  # items that are encoded at a time
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Lists:
    """Items sorted into lists of items that point the same way. Public, as the item vectors are.

    Attributes:
        centres: (L, K) float32, unit rows.
        list_of: (I,) int32, the list of each item.
    """

    centres: np.ndarray
    list_of: np.ndarray

    @cached_property
    def sizes(self) -> np.ndarray:
        """Items of each list, (L,)."""
        return np.bincount(self.list_of, minlength=len(self.centres))

    @classmethod
    def of(cls, vectors: np.ndarray) -> "Lists":
        """Sort I items by spherical k-means into 2 sqrt(I) lists; the same vectors, the same lists.

        Args:
            vectors: (I, K) float32, unit rows or zeros, I >= 1.

        Raises:
            ConfigError: faiss is not installed.
        """
        _need_faiss()
        import faiss

        items, count = len(vectors), min(len(vectors), round(2 * len(vectors) ** 0.5))
        sample = np.random.default_rng(0).permutation(items)[: _SAMPLE * count]
        means = faiss.Kmeans(vectors.shape[1], count, niter=_ROUNDS, spherical=True, seed=1, min_points_per_centroid=1)
        means.train(vectors[np.sort(sample)])
        nearest = faiss.IndexFlatIP(vectors.shape[1])
        nearest.add(means.centroids)
        return cls(means.centroids, nearest.search(vectors, 1)[1][:, 0].astype(np.int32))

    @classmethod
    def cached(cls, vectors: np.ndarray, folder: Path) -> "Lists":
        """The same, from a folder where they were written once, or will be.

        The file holds two arrays and no index of faiss, whose reader would have to trust it.

        Raises:
            ConfigError: faiss is not installed.
            DataError: the folder cannot be written.
        """
        digest = hashlib.sha256(str(vectors.shape).encode() + np.ascontiguousarray(vectors).data).hexdigest()
        path = folder / f"lists-{digest[:32]}.safetensors"
        found = _read(path, items=len(vectors), width=vectors.shape[1])
        if found is None:
            found = cls.of(vectors)
            arrays = {"centres": found.centres, "list_of": found.list_of}
            write_atomically(path, lambda temporary: save_file(arrays, temporary))
        return found


def _read(path: Path, *, items: int, width: int) -> Lists | None:
    """What ``cached`` wrote; None where there is none, and where it is anything else."""
    try:
        arrays = load_file(path)
        centres, list_of = arrays["centres"], arrays["list_of"]
    except (OSError, SafetensorError, KeyError):
        return None
    is_whole = (
        (centres.dtype, list_of.dtype) == (np.float32, np.int32)
        and centres.ndim == 2
        and centres.shape[1] == width
        and list_of.shape == (items,)
        and np.isfinite(centres).all()
        and ((list_of >= 0) & (list_of < len(centres))).all()
    )
    return Lists(centres, list_of) if is_whole else None


@dataclass(frozen=True, eq=False)
class ApproximateIndex:
    """Compares the nearest items and the best liked ones; an ``Index``. Threads may share one.

    Attributes:
        vectors: the item table, (I, K) float32.
        shared: what is the same for everybody, (I,) float32.
        by_shared: all items, the one with the largest ``shared`` first, (I,) int32.
        lists: of the items.
        codes: the lists in faiss, filled with vectors and ``shared``.
        config: how much is compared.
    """

    vectors: np.ndarray
    shared: np.ndarray
    by_shared: np.ndarray
    lists: Lists
    codes: "faiss.IndexIVF"
    config: RecallConfig

    @classmethod
    def of(
        cls, vectors: np.ndarray, shared: np.ndarray, *, lists: Lists, config: RecallConfig | None = None
    ) -> "ApproximateIndex":
        """Fill the lists.

        Args:
            vectors: the item table, (I, K) float32.
            shared: what is the same for everybody, (I,) float32.
            lists: of these vectors.

        Raises:
            ConfigError: faiss is not installed.
        """
        order = np.argsort(-shared, kind="stable").astype(np.int32)
        return cls(vectors, shared, order, lists, _codes(vectors, shared, lists), config or RecallConfig())

    def sharing(self, shared: np.ndarray) -> "ApproximateIndex":
        """The same lists, filled anew where another (I,) is now the same for everybody: two seconds a million items."""
        if np.array_equal(shared, self.shared):
            return self
        return ApproximateIndex.of(self.vectors, shared, lists=self.lists, config=self.config)

    def best(self, state: np.ndarray, *, most: int, allowed: np.ndarray) -> np.ndarray:
        items = np.union1d(
            self._near(state, max(most, self.config.nearest), allowed),
            self._liked(max(most, self.config.liked), allowed),
        )
        return items[best_of(self.vectors[items] @ state + self.shared[items], most)]

    def _near(self, state: np.ndarray, most: int, allowed: np.ndarray) -> np.ndarray:
        """Allowed items near the state, from as many lists as it takes to have compared enough allowed ones."""
        import faiss

        if not state.any():
            return np.zeros(0, np.int64)
        likeness, count = self.lists.centres @ state, len(self.lists.centres)
        holds = self.lists.sizes - np.bincount(self.lists.list_of[~allowed], minlength=count)  # allowed items
        nearest_first = np.argsort(-np.where(holds > 0, likeness, -np.inf))
        enough = int(np.searchsorted(np.cumsum(holds[nearest_first]), self.config.compared)) + 1
        if not holds.any():
            return np.zeros(0, np.int64)
        items_bits, lists_bits = np.packbits(allowed, bitorder="little"), np.packbits(holds > 0, bitorder="little")
        how = faiss.SearchParametersIVF(
            sel=faiss.IDSelectorBitmap(items_bits),
            nprobe=min(enough, int(np.count_nonzero(holds))),
            quantizer_params=faiss.SearchParameters(sel=faiss.IDSelectorBitmap(lists_bits)),
        )
        found = self.codes.search(_longer(state, 1.0)[None], most, params=how)[1][0]
        return found[found >= 0]  # -1: no more there

    def _liked(self, most: int, allowed: np.ndarray) -> np.ndarray:
        """The allowed items with the largest ``shared``."""
        looked_at, found = most, np.zeros(0, np.int64)
        while True:
            first = self.by_shared[:looked_at]
            found = first[allowed[first]]
            if len(found) >= most or looked_at >= len(self.by_shared):
                return found[:most]
            looked_at *= 4


def approximate_index(
    vectors: np.ndarray, shared: np.ndarray, *, cache: Path, config: RecallConfig | None = None
) -> ApproximateIndex | None:
    """The index of a catalogue that is too large to compare whole.

    Args:
        vectors: the item table, (I, K) float32.
        shared: what is the same for everybody, (I,) float32.
        cache: folder for the lists, which take a while to make.

    Returns:
        None up to ``exact_up_to`` items, and, with a line in the log, where faiss is not installed: all are compared.

    Raises:
        DataError: the folder cannot be written.
    """
    config = config or RecallConfig()
    if len(vectors) <= config.exact_up_to:
        return None
    try:
        _need_faiss()
    except ConfigError as error:
        logger.warning("recall: all %d items are compared: %s", len(vectors), error)
        return None
    return ApproximateIndex.of(vectors, shared, lists=Lists.cached(vectors, cache), config=config)


def _codes(vectors: np.ndarray, shared: np.ndarray, lists: Lists) -> "faiss.IndexIVF":
    """The lists in faiss, ready to search for ``<state, vector(item)> + shared(item)``."""
    _need_faiss()
    import faiss

    items, count = len(vectors), len(lists.centres)
    centres = faiss.IndexFlatIP(len(_longer(vectors[0], 0.0)))
    centres.add(_longer(lists.centres, np.zeros(count)))
    scalar, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    codes = faiss.IndexIVFScalarQuantizer(centres, centres.d, count, scalar, product, False)
    some = np.s_[:: max(1, items // _BLOCK)]
    codes.train(_longer(vectors[some], shared[some]))  # the least and the largest number of each column
    for start in range(0, items, _BLOCK):
        ids = np.arange(start, min(start + _BLOCK, items))
        block, places = _longer(vectors[ids], shared[ids]), lists.list_of[ids].astype(np.int64)
        codes.add_core(len(ids), faiss.swig_ptr(block), faiss.swig_ptr(ids), faiss.swig_ptr(places))
    return codes


def _longer(rows: np.ndarray, last: np.ndarray | float) -> np.ndarray:
    """Rows (N, K) with one more column, and zeros up to a multiple of 16: else faiss takes ten times as long."""
    width = rows.shape[-1]
    longer = np.zeros((*rows.shape[:-1], -(-(width + 1) // 16) * 16), np.float32)
    longer[..., :width], longer[..., width] = rows, last
    return longer


def _need_faiss() -> None:
    if find_spec("faiss") is None:
        raise ConfigError("needs the package faiss-cpu; pip install 'fedrec[faiss]'")
