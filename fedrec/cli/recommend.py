"""``fedrec recommend``: what a published model would offer somebody, and why."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedrec.cli.asking import (
    AsJson,
    Category,
    History,
    Items,
    MaxPrice,
    MinPrice,
    Run,
    filters_of,
    opened,
    ranked_rows,
    ranked_table,
)
from fedrec.cli.errors import one_line_errors
from fedrec.config_serving import ServingConfig

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


@one_line_errors
def recommend_command(
    run: Run,
    history: History = None,
    k: Annotated[int, typer.Option("--k", min=1, help="items in the list")] = DEFAULTS.k,
    category: Category = None,
    min_price: MinPrice = None,
    max_price: MaxPrice = None,
    hide_bought: Annotated[bool, typer.Option("--hide-bought", help="nothing out of the history")] = False,
    diversity: Annotated[float, typer.Option(min=0, max=1, help="from 0, by score alone, to 1")] = DEFAULTS.diversity,
    not_personalized: Annotated[
        bool, typer.Option("--not-personalized", help="the same list for everybody; the history is not looked at")
    ] = False,
    reasons: Annotated[bool, typer.Option("--reasons", help="say what each item is there for")] = False,
    catalogue: Items = None,
    as_json: AsJson = False,
) -> None:
    """Recommend items for a history, with what the run published; without a history, what is the same for all."""
    model, past = opened(run, history, catalogue=catalogue)
    from clients.serving.recommending import Wishes, recommend

    filters = filters_of(category, min_price, max_price, hide_bought=hide_bought)
    wishes = Wishes(k, filters, diversity, DEFAULTS.pool, personalized=not not_personalized)
    found = recommend(model, past, wishes)
    shown = ranked_rows(model.catalogue, found)
    if reasons:
        shown = [row | {"reason": why} for row, why in zip(shown, _reasons(model, past, found, wishes), strict=True)]
    if as_json:
        about = {"run": str(run), "version": model.version, "personalized": wishes.personalized}
        typer.echo(json.dumps(about | {"privacy": model.statement, "items": shown}, indent=2, ensure_ascii=False))
    elif shown:
        Console(highlight=False).print(ranked_table(shown))
    else:
        typer.echo("no item passes the filters")


def _reasons(model: "ServedModel", past: "np.ndarray", found: list["Recommendation"], wishes: "Wishes") -> list[str]:
    from clients.serving.explaining import explain

    asked = [one.item for one in found]
    return [one.sentence for one in explain(model, past, asked, personalized=wishes.personalized)]
