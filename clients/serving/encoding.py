"""Which encoder reads the queries of a run, and the vectors of its items by the same encoder."""

from pathlib import Path

from clients.serving.dense import DenseIndex
from fedrec.config import ItemsConfig
from fedrec.data.bundled import BUNDLED_ITEM_VECTORS
from fedrec.data.catalogue import Catalogue
from fedrec.model.encoder import resolve_encoder
from fedrec.model.items import bundled_vectors, item_vectors, read_item_metadata


def dense_index(catalogue: Catalogue, items: ItemsConfig, *, named: str | None, cache: Path) -> DenseIndex | None:
    """Search by meaning, by the encoder that is named, or else the run's.

    Args:
        named: ``hashing``, or a Hugging Face folder or name.
        cache: folder for vectors that have to be made.

    Returns:
        None for the bundled vectors, which ship without their encoder, where none is named.

    Raises:
        ConfigError: there is no such encoder.
    """
    shipped = read_item_metadata(BUNDLED_ITEM_VECTORS)
    is_bundled = shipped["catalogue_digest"] == catalogue.digest()
    spec = named or items.encoder
    if spec == "auto" and is_bundled:
        return None
    encoder = resolve_encoder(spec, local_files_only=items.local_files_only)
    if is_bundled and encoder.digest == shipped["encoder_digest"]:
        return DenseIndex(bundled_vectors(catalogue), encoder)
    return DenseIndex(item_vectors(catalogue, encoder, cache_dir=cache), encoder)
