"""``fedrec search``: find products of a run's catalogue by words, by meaning, and for somebody in particular."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.asking import (
    Adapter,
    AsJson,
    Category,
    History,
    Items,
    MaxPrice,
    MinPrice,
    SearchEngine,
    filters_of,
    opened,
    ranked_rows,
    ranked_table,
)
from fedrec.cli.errors import one_line_errors
from fedrec.config_serving import ServingConfig
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    import numpy as np

    from fedrec.config import DataConfig
    from fedrec.data.catalogue import Catalogue

EXAMPLES = """Examples:

\b
  fedrec search runs/mine "red mug"
      products with these words, and products that mean this
  fedrec search runs/mine "red mug" --history 85123A,22423 --max-price 5
      what is found, in an order that suits somebody who bought these two
  fedrec search runs/mine "rde mgu" --k 5 --json
      misspelt words are answered too
  fedrec search runs/mine "gift for a child" --encoder all-MiniLM-L6-v2
      by meaning, for the bundled products, whose vectors ship without their language model
  fedrec search runs/mine "red mug" --search-engine https://search.example.org:9200
      words by an Elasticsearch or OpenSearch of your own, which gets the catalogue; see docs/search.md
"""


@one_line_errors
def search_command(
    run: Annotated[Path, typer.Argument(help="run folder", metavar="RUN")],
    query: Annotated[str, typer.Argument(help="what to look for")],
    history: History = None,
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="products, at most")] = ServingConfig().k,
    category: Category = None,
    min_price: MinPrice = None,
    max_price: MaxPrice = None,
    encoder: Annotated[
        str | None, typer.Option(help="hashing, a Hugging Face folder or name [the run's own]; reads the query")
    ] = None,
    adapter: Adapter = None,
    search_engine: SearchEngine = None,
    catalogue: Items = None,
    as_json: AsJson = False,
) -> None:
    """Search the catalogue of a run; with a history, the run's ranker has a say in the order of what is found."""
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from clients.serving.elastic import words_backend
    from clients.serving.encoding import dense_index
    from clients.serving.fulltext import cached_index
    from clients.serving.ranking import allowed_items
    from clients.serving.search import Searcher
    from fedrec.run_config import load_run_config

    config = load_run_config(run / "config.toml")
    items, own_scores = _asked(run, config.data, history, catalogue=catalogue)
    allowed = allowed_items(items, filters_of(category, min_price, max_price))
    dense = dense_index(items, config.items, named=encoder, cache=_cache(), adapter=adapter)
    if dense is None:
        typer.echo(
            "by words only: the bundled vectors ship without their encoder; name one with --encoder PATH", err=True
        )
    searcher = Searcher(words_backend(items, cached_index(items, _cache()), engine=search_engine), dense)
    rows = ranked_rows(items, searcher.search(query, k=k, allowed=allowed, user_scores=own_scores))
    if as_json:
        about = {"query": query, "by_meaning": dense is not None, "personalized": own_scores is not None}
        typer.echo(json.dumps(about | {"hits": rows}, ensure_ascii=False))
    else:
        _print(rows)


def _asked(
    run: Path, data: "DataConfig", history: list[str] | None, *, catalogue: Path | None
) -> tuple["Catalogue", "np.ndarray | None"]:
    """The products, and the score (I,) that a history gives them; without one the model is not loaded."""
    if history is None:
        from clients.serving.model import catalogue_of

        return catalogue_of(run, data, named=catalogue), None
    import numpy as np

    from clients.serving.scoring import score_parts

    model, past = opened(run, history, catalogue=catalogue)
    return model.catalogue, np.sum(list(score_parts(model, past).values()), axis=0)


def _cache() -> Path:
    return Path.home() / ".cache" / "fedrec"


def _print(rows: list[dict]) -> None:
    from rich.console import Console

    if not rows:
        typer.echo("nothing found; try other words")
        return
    found_by = [", ".join(f"{name} {value:.2f}" for name, value in row["parts"].items()) for row in rows]
    Console(highlight=False).print(ranked_table(rows, last=("found by", found_by)))
