"""``fedrec tune-search``: let search learn from what people chose after a query."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.asking import AsJson, Items
from fedrec.cli.data import EventMap, parse_mapping
from fedrec.cli.errors import one_line_errors
from fedrec.config_search import QueryTrainingConfig, SearchConfig
from fedrec.errors import ConfigError, RunError
from fedrec.paths import make_app_importable
from fedrec.quiet import silence

if TYPE_CHECKING:
    from clients.serving.query_training import Trained
    from fedrec.data.catalogue import Catalogue
    from fedrec.data.query_events import QueryEvents

EXAMPLES = """Examples:

\b
  fedrec tune-search runs/mine --store shop.sqlite --out search-1
      how much words and meaning count, from the shop's own queries
  fedrec search runs/mine "red mug" --adapter search-1
      what was learned, put to work; fedrec serve takes it too
  fedrec tune-search runs/mine --data queries.parquet --map query=SearchTerm --out search-1 --turn
      from a file with user_id, query, item_id; the reading of a query is trained too
"""


@one_line_errors
def tune_search_command(
    run: Annotated[Path, typer.Argument(help="run folder", metavar="RUN")],
    out: Annotated[Path, typer.Option(help="new folder for what search learns")],
    store: Annotated[Path | None, typer.Option(help="the shop's events, such as shop.sqlite")] = None,
    data: Annotated[Path | None, typer.Option(help="a file with user_id, query, item_id, in place of a store")] = None,
    event_map: EventMap = None,
    turn: Annotated[
        bool, typer.Option("--turn/--mix-alone", help="train how a query is read too, and not only what counts")
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help="hashing, a Hugging Face folder or name [the run's own]; reads the query")
    ] = None,
    catalogue: Items = None,
    as_json: AsJson = False,
) -> None:
    """Train search on one shop's own queries, and write what people who were held out found better.

    There is no noise: what is written can tell about the people it was trained on. Keep it where their events are.
    """
    silence()
    make_app_importable()
    from clients.serving.encoding import dense_index
    from clients.serving.fulltext import FullTextIndex
    from clients.serving.model import catalogue_of
    from clients.serving.query_examples import query_examples
    from clients.serving.query_training import new_adapter, train
    from fedrec.model.learned_query import save_learned
    from fedrec.run_config import load_run_config

    if out.exists():
        raise RunError(f"{out}: exists; choose another place")
    config, search, training = load_run_config(run / "config.toml"), SearchConfig(), QueryTrainingConfig()
    items = catalogue_of(run, config.data, named=catalogue)
    events = _events(items, store, data, event_map)
    dense = dense_index(items, config.items, named=encoder, cache=Path.home() / ".cache" / "fedrec")
    if dense is None:
        raise ConfigError("the bundled vectors ship without their encoder; name one with --encoder PATH")
    examples = query_examples(events, FullTextIndex.build(items), dense, search=search, training=training)
    trained = train(new_adapter(dense, search, training, turns=turn), examples, dense.vectors, training=training)
    if trained.is_better:
        save_learned(trained.learned, out, encoder=dense.encoder)
    _tell(trained, out, as_json=as_json)


def _events(items: "Catalogue", store: Path | None, data: Path | None, event_map: list[str] | None) -> "QueryEvents":
    from clients.serving.reading import read_queries
    from clients.serving.store import EventStore
    from fedrec.data.query_events import read_query_events

    columns = parse_mapping(event_map, flag="--map")
    if (store is None) == (data is None):
        raise ConfigError("expected --store FILE or --data FILE, one of them")
    if data is not None:
        return read_query_events(data, items, columns=columns)
    if columns:
        raise ConfigError("--map needs --data")
    assert store is not None  # noqa: S101 - one of the two
    with EventStore.open(store) as opened:
        return read_queries(opened, items)


def _tell(trained: "Trained", out: Path, *, as_json: bool) -> None:
    facts = {
        "out": str(out) if trained.is_better else None,
        "judges": trained.judges,
        "mean_reciprocal_rank_before": trained.before,
        "gain": trained.gain,
        "standard_error": trained.standard_error,
        "words": trained.learned.words,
        "meaning": trained.learned.meaning,
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    judged = f"{trained.judges} people held out: {trained.before:.3f} {trained.gain:+.3f} (standard error "
    judged += f"{trained.standard_error:.3f}) mean reciprocal rank of what they chose"
    said = (
        f"{out}: written" if trained.is_better else "not better beyond chance: nothing written, search stays as it is"
    )
    typer.echo(f"{judged}\n{said}")
