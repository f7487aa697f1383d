"""``fedrec ads``: which ads somebody would be shown, and what a click on each costs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedrec.cli.asking import AsJson, Category, History, Items, MaxPrice, MinPrice, Run, filters_of, opened
from fedrec.cli.errors import one_line_errors
from fedrec.config_clicks import AdsConfig
from fedrec.errors import ConfigError

if TYPE_CHECKING:
    from clients.serving.auction import Placed
    from clients.serving.model import ServedModel

EXAMPLES = """Examples:

\b
  fedrec ads runs/mine --head runs/clicks/clicks.safetensors --offers offers.csv --history 85123A,22423
      the ads that are shown to somebody who bought these two, with the price of a click
  fedrec ads runs/mine --head clicks.safetensors --offers offers.csv --context hour=20 --context device=phone
      with what the head reads of the request
  fedrec ads runs/mine --head clicks.safetensors --offers offers.csv --not-personalized --json
      the ads that are the same for everybody, for a program

Offers are a CSV or Parquet file: ad, item_id, bid (the most a click may cost). Nothing is written and nothing is sent.
"""
DEFAULTS = AdsConfig()


@one_line_errors
def ads_command(
    run: Run,
    head: Annotated[Path, typer.Option(help="file that fedrec clicks wrote")],
    offers: Annotated[Path, typer.Option(help="CSV or Parquet of ads: ad, item_id, bid")],
    history: History = None,
    context: Annotated[list[str] | None, typer.Option(help="a field of the request: NAME=VALUE; repeatable")] = None,
    places: Annotated[int, typer.Option(min=1, help="ads shown, at most")] = DEFAULTS.places,
    reserve: Annotated[float, typer.Option(min=0, help="least price of a click")] = DEFAULTS.reserve,
    category: Category = None,
    min_price: MinPrice = None,
    max_price: MaxPrice = None,
    hide_bought: Annotated[bool, typer.Option("--hide-bought", help="nothing out of the history")] = False,
    not_personalized: Annotated[
        bool, typer.Option("--not-personalized", help="the same ads for everybody; history and context have no say")
    ] = False,
    catalogue: Items = None,
    as_json: AsJson = False,
) -> None:
    """Rank ads for a history by bid and probability of a click; whoever is shown pays the second price."""
    model, past = opened(run, history, catalogue=catalogue)
    from clients.serving.ads import AdWishes, ads_for, read_offers
    from fedrec.model.clicks import load_click_head

    filters = filters_of(category, min_price, max_price, hide_bought=hide_bought)
    wishes = AdWishes(places, reserve, filters, personalized=not not_personalized, context=_context(context or []))
    placed = ads_for(model, load_click_head(head), read_offers(offers, model.catalogue), past, wishes)
    rows = [_row(model, one) for one in placed]
    if as_json:
        about = {"run": str(run), "version": model.version, "head": str(head), "personalized": wishes.personalized}
        typer.echo(json.dumps(about | {"ads": rows}, indent=2, ensure_ascii=False))
    elif rows:
        Console(highlight=False).print(_table(rows))
    else:
        typer.echo("no ad passes the filters and bids the reserve")


def _context(given: list[str]) -> dict[str, object]:
    pairs = [text.partition("=") for text in given]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise ConfigError("--context: expected NAME=VALUE, such as device=phone")
    return {name: _value(text) for name, _, text in pairs}


def _value(text: str) -> object:
    """A number where it is one; a category reads the text of either."""
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text or None


def _row(model: "ServedModel", placed: "Placed") -> dict[str, Any]:
    """One ad as JSON has it."""
    return {
        "ad": placed.offer.ad,
        "item_id": model.catalogue.item_ids[placed.offer.item],
        "title": model.catalogue.titles[placed.offer.item],
        "probability": placed.probability,
        "value": placed.value,
        "price": placed.price,
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ad", "item"):
        table.add_column(name, no_wrap=True)
    table.add_column("title", overflow="fold")
    for name in ("a click is", "worth", "and costs"):
        table.add_column(name, justify="right")
    for row in rows:
        texts = (escape(row[name]) for name in ("ad", "item_id", "title"))
        table.add_row(*texts, f"{row['probability']:.1%}", f"{row['value']:.4f}", f"{row['price']:.2f}")
    return table
