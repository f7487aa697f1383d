"""Which encoder reads the queries of a run, and the vectors of its items by the same encoder."""

from pathlib import Path

from clients.serving.dense import DenseIndex
from fedrec.config import ItemsConfig
from fedrec.data.bundled import BUNDLED_ITEM_VECTORS
from fedrec.data.catalogue import Catalogue
from fedrec.errors import ConfigError
from fedrec.model.encoder import resolve_encoder
from fedrec.model.items import bundled_vectors, item_vectors, read_item_metadata
from fedrec.model.learned_query import load_learned


def dense_index(
    catalogue: Catalogue, items: ItemsConfig, *, named: str | None, cache: Path, adapter: Path | None = None
) -> DenseIndex | None:
    """Search by meaning, by the encoder that is named, or else the run's.

    Args:
        named: ``hashing``, or a Hugging Face folder or name.
        cache: folder for vectors that have to be made.
        adapter: folder of what search learned, if it did.

    Returns:
        None for the bundled vectors, which ship without their encoder, where none is named.

    Raises:
        ConfigError: there is no such encoder or adapter, or an adapter and no encoder.
        RunError: the adapter cannot be used with the encoder.
    """
    if adapter is not None and not adapter.is_dir():
        raise ConfigError(f"--adapter {adapter}: no such folder; expected what fedrec tune-search wrote")
    shipped = read_item_metadata(BUNDLED_ITEM_VECTORS)
    is_bundled = shipped["catalogue_digest"] == catalogue.digest()
    spec = named or items.encoder
    if spec == "auto" and is_bundled:
        if adapter is not None:
            raise ConfigError(
                f"--adapter {adapter}: needs the encoder that it was trained beside; name it: --encoder PATH"
            )
        return None
    encoder = resolve_encoder(spec, local_files_only=items.local_files_only)
    learned = None if adapter is None else load_learned(adapter, encoder)
    is_shipped = is_bundled and encoder.digest == shipped["encoder_digest"]
    vectors = bundled_vectors(catalogue) if is_shipped else item_vectors(catalogue, encoder, cache_dir=cache)
    return DenseIndex(vectors, encoder, learned)
