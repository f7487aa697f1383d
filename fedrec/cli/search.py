"""``fedrec search``: find products of a run's catalogue by words and by meaning."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.errors import ConfigError
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    import numpy as np

    from clients.serving.dense import DenseIndex
    from clients.serving.search import Hit
    from fedrec.config import ItemsConfig
    from fedrec.data.catalogue import Catalogue

EXAMPLES = """Examples:

\b
  fedrec search runs/mine "red mug"
      products with these words, and products that mean this
  fedrec search runs/mine "rde mgus" --k 5 --json
      misspelt words are answered too
  fedrec search runs/mine "gift for a child" --encoder all-MiniLM-L6-v2
      by meaning, for the bundled products, whose vectors ship without their language model
"""


@one_line_errors
def search_command(
    run: Annotated[Path, typer.Argument(help="run folder")],
    query: Annotated[str, typer.Argument(help="what to look for")],
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="products, at most")] = 10,
    category: Annotated[str | None, typer.Option(help="only of this category")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="hashing, a Hugging Face folder or name [the run's own]; reads the query")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Search the catalogue of a run."""
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from clients.serving.fulltext import cached_index
    from clients.serving.search import Searcher
    from fedrec.config import load_config
    from fedrec.data import load_catalogue

    config = load_config(run / "config.toml")
    catalogue = load_catalogue(config.data)
    allowed = None if category is None else _of_category(catalogue, category)
    dense = _dense(catalogue, config.items, named=encoder)
    if dense is None:
        typer.echo(
            "by words only: the bundled vectors ship without their encoder; name one with --encoder PATH", err=True
        )
    searcher = Searcher(cached_index(catalogue, _cache()), dense)
    # The place for a person's own scores of the items, user_scores=, as the ranker gives them for a history.
    hits = searcher.search(query, k=k, allowed=allowed)
    if as_json:
        typer.echo(json.dumps(_document(query, hits, catalogue, by_meaning=dense is not None), ensure_ascii=False))
    else:
        _print(hits, catalogue)


def _of_category(catalogue: "Catalogue", category: str) -> "np.ndarray":
    """(I,) bool; letter case does not count."""
    import numpy as np

    categories = np.array([text.strip().casefold() for text in catalogue.text_column("category")])
    allowed = categories == category.strip().casefold()
    if not allowed.any():
        known = sorted({text for text in catalogue.text_column("category") if text})
        there_are = f"there are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}" if known else "none is known"
        raise ConfigError(f"--category {category!r}: no product of it in this catalogue; {there_are}")
    return allowed


def _dense(catalogue: "Catalogue", items: "ItemsConfig", *, named: str | None) -> "DenseIndex | None":
    """Search by meaning, by the encoder that is named, or else the run's; None where the run's vectors came without."""
    from clients.serving.dense import DenseIndex
    from fedrec.data.bundled import BUNDLED_ITEM_VECTORS
    from fedrec.model.encoder import resolve_encoder
    from fedrec.model.items import bundled_vectors, item_vectors, read_item_metadata

    shipped = read_item_metadata(BUNDLED_ITEM_VECTORS)
    is_bundled = shipped["catalogue_digest"] == catalogue.digest()
    spec = named or items.encoder
    if spec == "auto" and is_bundled:
        return None
    encoder = resolve_encoder(spec, local_files_only=items.local_files_only)
    if is_bundled and encoder.digest == shipped["encoder_digest"]:
        return DenseIndex(bundled_vectors(catalogue), encoder)
    return DenseIndex(item_vectors(catalogue, encoder, cache_dir=_cache()), encoder)


def _cache() -> Path:
    return Path.home() / ".cache" / "fedrec"


def _document(query: str, hits: "list[Hit]", catalogue: "Catalogue", *, by_meaning: bool) -> dict:
    listed = [
        {
            "item_id": catalogue.item_ids[hit.item],
            "title": catalogue.titles[hit.item],
            "score": round(hit.score, 6),
            "parts": {name: round(value, 6) for name, value in hit.parts.items()},
        }
        for hit in hits
    ]
    return {"query": query, "by_meaning": by_meaning, "hits": listed}


def _print(hits: "list[Hit]", catalogue: "Catalogue") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not hits:
        typer.echo("nothing found; try other words")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", "ITEM", "TITLE", "SCORE", "FOUND BY"):
        table.add_column(name, justify="right" if name in ("", "SCORE") else "left", overflow="fold")
    for rank, hit in enumerate(hits, start=1):
        by = ", ".join(f"{name} {value:.2f}" for name, value in hit.parts.items())
        row = (str(rank), catalogue.item_ids[hit.item], catalogue.titles[hit.item], f"{hit.score:.2f}", by)
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)
