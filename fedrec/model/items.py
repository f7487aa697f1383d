"""The catalogue as vectors: encode once, keep on disk, whiten. Catalogue text only; no person's data comes here."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedrec.data.bundled import BUNDLED_ITEM_VECTORS
from fedrec.data.catalogue import Catalogue
from fedrec.data.tables import write_atomically
from fedrec.errors import ConfigError, DataError
from fedrec.model.encoder import TextEncoder, resolve_encoder

_TENSOR = "vectors"
_MADE_BY = "made_by"
_BLOCK = 65_536  # items whitened at a time
_log = logging.getLogger(__name__)


def catalogue_vectors(
    catalogue: Catalogue,
    encoder: str,
    *,
    local_files_only: bool,
    cache_dir: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """The vectors of a catalogue by the setting ``items.encoder``.

    ``auto`` means the shipped vectors when the catalogue is exactly the bundled one, and ``hashing`` otherwise.

    Returns:
        (I, E) float32.
    """
    if encoder == "auto" and read_item_metadata(BUNDLED_ITEM_VECTORS).get("catalogue_digest") == catalogue.digest():
        return bundled_vectors(catalogue)
    resolved = resolve_encoder(encoder, local_files_only=local_files_only)
    return item_vectors(catalogue, resolved, cache_dir=cache_dir, progress=progress)


def item_vectors(
    catalogue: Catalogue,
    encoder: TextEncoder,
    *,
    cache_dir: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Encode every item's text, or read what an earlier run encoded.

    The cache is keyed by the texts and the encoder's digest, so a changed title or another model is encoded afresh,
    and so is a file that cannot be read. Values are rounded to fp16 on the first call too, so all calls agree.

    Args:
        catalogue: I items.
        encoder: a frozen encoder of dimension E.
        cache_dir: folder of the cache, made when absent; None keeps nothing.
        progress: called with (texts done, texts in all).

    Returns:
        (I, E) float32.

    Raises:
        DataError: the cache folder cannot be written, or the encoder gave a vector that is not finite.
    """
    texts = catalogue.texts()
    path = None if cache_dir is None else cache_dir / f"items-{_cache_key(texts, encoder)[:32]}.safetensors"
    if path is not None and path.exists():
        try:
            return read_item_vectors(path, shape=(len(texts), encoder.dimension))
        except DataError as error:
            _log.warning("item_cache=unusable action=encode_again reason=%s", error)
    vectors = _rounded(encoder.encode(texts, progress=progress), encoder)
    if path is not None:
        write_item_vectors(vectors, path, catalogue=catalogue, encoder=encoder)
    return vectors.astype(np.float32)


def bundled_vectors(catalogue: Catalogue) -> np.ndarray:
    """The MiniLM vectors that ship with the bundled catalogue, (I, 384) float32; see ``docs/item-vectors.md``.

    Raises:
        DataError: ``catalogue`` is not the one they were made from, or the file is damaged.
    """
    made_from = read_item_metadata(BUNDLED_ITEM_VECTORS).get("catalogue_digest", "")
    if made_from != catalogue.digest():
        raise DataError(
            f"{BUNDLED_ITEM_VECTORS}: made from catalogue {made_from[:12]}, not {catalogue.digest()[:12]}; "
            "make them again with: fedrec items encode"
        )
    return read_item_vectors(BUNDLED_ITEM_VECTORS, shape=(len(catalogue), None))


def write_item_vectors(vectors: np.ndarray, path: Path, *, catalogue: Catalogue, encoder: TextEncoder) -> None:
    """Write (I, E) vectors as fp16 safetensors, whole or not at all, saying what made them.

    Raises:
        DataError: the file cannot be written, or a value is not finite in fp16.
    """
    made_by = {
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "catalogue_digest": catalogue.digest(),
        "items": str(len(catalogue)),
    }
    # One entry, because safetensors writes several in no fixed order, and equal vectors should give equal files.
    content = save({_TENSOR: _rounded(vectors, encoder)}, metadata={_MADE_BY: json.dumps(made_by)})
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def read_item_vectors(path: Path, *, shape: tuple[int, int | None]) -> np.ndarray:
    """Read a file of ``write_item_vectors``.

    Args:
        path: the file.
        shape: what is expected, (I, E); E None accepts any width.

    Returns:
        (I, E) float32.

    Raises:
        DataError: not such a file, another shape, or a value that is not finite.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            vectors = file.get_tensor(_TENSOR)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a readable file of item vectors: {error}") from None
    width = vectors.shape[-1] if shape[1] is None else shape[1]
    if vectors.dtype != np.float16 or vectors.shape != (shape[0], width):
        raise DataError(
            f"{path}: holds {vectors.dtype} {vectors.shape}, expected float16 {(shape[0], width)}; encode again"
        )
    if not np.isfinite(vectors).all():
        raise DataError(f"{path}: holds a value that is not finite; encode again")
    return vectors.astype(np.float32)


def read_item_metadata(path: Path) -> dict[str, str]:
    """What made a file of item vectors: ``encoder``, ``encoder_digest``, ``catalogue_digest``, ``items``.

    Raises:
        DataError: not a file of item vectors.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(json.loads((file.metadata() or {})[_MADE_BY]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not a readable file of item vectors: {error}") from None


@dataclass(frozen=True)
class Whitening:
    """A fixed linear map after which text similarity is spread evenly over the directions that texts differ in.

    Args:
        mean: of the fitted vectors, (E,) float64.
        projection: (E, K) float64.
    """

    mean: np.ndarray
    projection: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray, *, dimensions: int, damping: float) -> "Whitening":
        """Fit on catalogue vectors only.

        Args:
            vectors: (I, E), I >= 1.
            dimensions: K >= 1, columns of the result; those beyond the rank of the vectors are zero.
            damping: share of the mean variance added to each direction before its spread is divided out, >= 0;
                keeps directions that hardly vary, mostly noise, from being blown up.

        Raises:
            ConfigError: ``dimensions`` or ``damping`` out of range.

        Source: Mu and Viswanath 2018, All-but-the-Top, https://arxiv.org/abs/1702.01417 (remove the mean and flatten
        the leading directions); here eigenvectors / sqrt(eigenvalue + damping * mean eigenvalue).
        """
        if dimensions < 1:
            raise ConfigError(f"dimensions={dimensions}: expected >= 1; set items.dimensions")
        if not (damping >= 0 and np.isfinite(damping)):
            raise ConfigError(f"damping={damping}: expected a finite number >= 0; set items.damping")
        mean = vectors.mean(axis=0, dtype=np.float64)
        spread = np.zeros((vectors.shape[1], vectors.shape[1]))
        for rows in _blocks(len(vectors)):
            centred = vectors[rows].astype(np.float64) - mean
            spread += centred.T @ centred
        values, directions = np.linalg.eigh(spread / len(vectors))  # ascending
        values, directions = values[::-1].clip(min=0), directions[:, ::-1]
        # Below this an eigenvalue is rounding, and dividing by its root would turn rounding into similarity.
        rank = int(np.count_nonzero(values > max(values[0], 1e-12) * 1e-10))
        kept = min(dimensions, rank)
        projection = np.zeros((vectors.shape[1], dimensions))
        projection[:, :kept] = _signed(directions[:, :kept]) / np.sqrt(values[:kept] + damping * values.mean())
        return cls(mean, projection)

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Whiten vectors of the fitted width.

        Args:
            vectors: (I, E).

        Returns:
            (I, K) float32 rows of length 1; zeros for a vector with nothing in the kept directions.
        """
        whitened = np.empty((len(vectors), self.projection.shape[1]), np.float32)
        lengths = np.empty((len(vectors), 1))
        for rows in _blocks(len(vectors)):
            projected = (vectors[rows].astype(np.float64) - self.mean) @ self.projection  # (block, K)
            lengths[rows] = np.linalg.norm(projected, axis=1, keepdims=True)
            whitened[rows] = projected / np.where(lengths[rows] > 0, lengths[rows], 1.0)
        # A vector equal to the mean has no direction: what is left of it is rounding.
        whitened[lengths[:, 0] < 1e-6 * max(float(lengths.max(initial=0.0)), 1e-12)] = 0.0
        return whitened


def _blocks(items: int) -> list[slice]:
    """A catalogue in pieces: in float64 the whole of a million vectors would take gigabytes."""
    return [slice(first, first + _BLOCK) for first in range(0, items, _BLOCK)]


def _signed(directions: np.ndarray) -> np.ndarray:
    """Flip each column so that its largest entry is positive: LAPACK builds differ in the sign they return."""
    largest = np.abs(directions).argmax(axis=0)
    return directions * np.where(directions[largest, np.arange(directions.shape[1])] < 0, -1.0, 1.0)


def _cache_key(texts: list[str], encoder: TextEncoder) -> str:
    key = hashlib.sha256(encoder.digest.encode())
    for text in texts:
        raw = text.encode()
        key.update(len(raw).to_bytes(8, "big") + raw)  # lengths keep ("ab", "c") apart from ("a", "bc")
    return key.hexdigest()


def _rounded(vectors: np.ndarray, encoder: TextEncoder) -> np.ndarray:
    with np.errstate(over="ignore"):
        rounded = vectors.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise DataError(f"encoder {encoder.name} gave a vector that is not finite in fp16; use another encoder")
    return rounded
