"""``fedrec recommend``: what a published model would offer somebody, and why."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedrec.cli.errors import one_line_errors
from fedrec.config_serving import ServingConfig
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    import numpy as np

    from clients.serving.model import ServedModel
    from clients.serving.recommending import Recommendation, Wishes

EXAMPLES = """Examples:

\b
  fedrec recommend runs/mine --history 85123A,22423
      ten items for somebody who bought these two, the latest last
  fedrec recommend runs/mine --history 85123A,22423 --reasons
      with the past purchase that did most for each
  fedrec recommend runs/mine --history 85123A,22423 --max-price 5 --diversity 0.3
      nothing above 5, and less of the same
  fedrec recommend runs/mine --not-personalized --json
      the list that is the same for everybody, for a program

Nothing is written and nothing is sent. Your shell may keep what you type.
"""

DEFAULTS = ServingConfig()

Run = Annotated[Path, typer.Argument(help="folder of a run with a published adapter", metavar="RUN")]
History = Annotated[
    list[str] | None, typer.Option(help="item ids as in the catalogue, oldest first: A,B,C; repeatable")
]
Items = Annotated[
    Path | None, typer.Option("--catalogue", help="file of the run's items, where it has moved [as the run says]")
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")]


@one_line_errors
def recommend_command(
    run: Run,
    history: History = None,
    k: Annotated[int, typer.Option("--k", help="items in the list")] = DEFAULTS.k,
    category: Annotated[str | None, typer.Option(help="of this category alone")] = None,
    min_price: Annotated[float | None, typer.Option(help="at least this price")] = None,
    max_price: Annotated[float | None, typer.Option(help="at most this price")] = None,
    hide_bought: Annotated[bool, typer.Option("--hide-bought", help="nothing out of the history")] = False,
    diversity: Annotated[float, typer.Option(help="from 0, by score alone, to 1")] = DEFAULTS.diversity,
    not_personalized: Annotated[
        bool, typer.Option("--not-personalized", help="the same list for everybody; the history is not looked at")
    ] = False,
    reasons: Annotated[bool, typer.Option("--reasons", help="say what each item is there for")] = False,
    catalogue: Items = None,
    as_json: AsJson = False,
) -> None:
    """Recommend items for a history, with what the run published; without a history, what is the same for all."""
    model, past = opened(run, history, catalogue=catalogue)
    from clients.serving.ranking import Filters
    from clients.serving.recommending import Wishes, recommend

    filters = Filters(category, min_price, max_price, hide_bought=hide_bought)
    wishes = Wishes(k, filters, diversity, DEFAULTS.pool, personalized=not not_personalized)
    found = recommend(model, past, wishes)
    shown = _rows(model, found, why=_reasons(model, past, found, wishes) if reasons else None)
    if as_json:
        about = {"run": str(run), "version": model.version, "personalized": wishes.personalized}
        typer.echo(json.dumps(about | {"privacy": model.statement, "items": shown}, indent=2, ensure_ascii=False))
    elif shown:
        Console(highlight=False).print(_table(shown))
    else:
        typer.echo("no item passes the filters")


def opened(run: Path, history: list[str] | None, *, catalogue: Path | None) -> tuple["ServedModel", "np.ndarray"]:
    """Load a run's model, and find the items of a history in its catalogue."""
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from clients.serving.lookup import positions_of, split_ids
    from clients.serving.model import load_model

    model = load_model(run, catalogue=catalogue)
    ids = split_ids(model.catalogue, history or [])
    return model, positions_of(model.catalogue, ids, flag="--history")


def _reasons(model: "ServedModel", past: "np.ndarray", found: list["Recommendation"], wishes: "Wishes") -> list[str]:
    from clients.serving.explaining import explain

    asked = [one.item for one in found]
    return [one.sentence for one in explain(model, past, asked, personalized=wishes.personalized)]


def _rows(model: "ServedModel", found: list["Recommendation"], *, why: list[str] | None) -> list[dict[str, Any]]:
    """Each item as JSON has it."""
    rows = [
        {
            "item_id": model.catalogue.item_ids[one.item],
            "title": model.catalogue.titles[one.item],
            "score": one.score,
            "parts": one.parts,
        }
        for one in found
    ]
    return rows if why is None else [row | {"reason": text} for row, text in zip(rows, why, strict=True)]


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("item", no_wrap=True)
    table.add_column("title", overflow="fold")
    table.add_column("score", justify="right")
    for place, row in enumerate(rows, start=1):
        reason = f"\n[dim]{escape(row['reason'])}[/]" if "reason" in row else ""
        table.add_row(str(place), escape(row["item_id"]), escape(row["title"]) + reason, f"{row['score']:.2f}")
    return table
