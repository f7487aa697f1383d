"""What the commands that ask a published model share: their options, loading it, and a ranked list on the screen."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from rich.markup import escape
from rich.table import Table

from fedrec.errors import ConfigError, RunError
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    import numpy as np

    from clients.serving.model import ServedModel
    from clients.serving.ranking import Filters
    from fedrec.data.catalogue import Catalogue

Run = Annotated[Path, typer.Argument(help="folder of a run with a published adapter", metavar="RUN")]
History = Annotated[
    list[str] | None, typer.Option(help="item ids as in the catalogue, oldest first: A,B,C; repeatable")
]
Category = Annotated[str | None, typer.Option(help="of this category alone")]
MinPrice = Annotated[float | None, typer.Option(min=0, help="at least this price")]
MaxPrice = Annotated[float | None, typer.Option(min=0, help="at most this price")]
Items = Annotated[
    Path | None, typer.Option("--catalogue", help="file of the run's items, where it has moved [as the run says]")
]
Adapter = Annotated[
    Path | None, typer.Option("--adapter", help="folder of fedrec tune-search: what search learned [nothing]")
]
SearchEngine = Annotated[
    str | None,
    typer.Option(help="address of your own Elasticsearch or OpenSearch [SQLite's, in this process]", metavar="URL"),
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")]


class Ranked(Protocol):
    """An item of a list, found by whatever: its index, its score, and what that is the sum of."""

    @property
    def item(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def parts(self) -> Mapping[str, float]: ...


def opened(run: Path, history: list[str] | None, *, catalogue: Path | None) -> tuple["ServedModel", "np.ndarray"]:
    """Load a run's model, and find the items of a history in its catalogue.

    Raises:
        FedrecError: this is no run, or one that cannot be served; or an item is not in its catalogue.
    """
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from clients.serving.lookup import positions_of, split_ids
    from clients.serving.model import load_model
    from fedrec.agreement import FILE

    if not (run / FILE).exists():
        raise RunError(f"{run}: not the folder of a run: there is no {FILE} in it; name one that fedrec simulate made")
    model = load_model(run, catalogue=catalogue)
    ids = split_ids(model.catalogue, history or [])
    return model, positions_of(model.catalogue, ids, flag="--history")


def filters_of(
    category: str | None, min_price: float | None, max_price: float | None, *, hide_bought: bool = False
) -> "Filters":
    """What may be offered, as the flags say.

    Raises:
        ConfigError: the prices are no range.
    """
    from clients.serving.ranking import Filters

    if min_price is not None and max_price is not None and min_price > max_price:
        raise ConfigError(f"--min-price {min_price:g} is above --max-price {max_price:g}")
    return Filters(category, min_price, max_price, hide_bought=hide_bought)


def ranked_rows(catalogue: "Catalogue", found: Iterable[Ranked]) -> list[dict[str, Any]]:
    """Each item of a list as JSON has it."""
    return [
        {
            "item_id": catalogue.item_ids[one.item],
            "title": catalogue.titles[one.item],
            "score": one.score,
            "parts": dict(one.parts),
        }
        for one in found
    ]


def ranked_table(rows: Sequence[Mapping[str, Any]], *, last: tuple[str, Sequence[str]] | None = None) -> Table:
    """A list for a person to read; a row's ``reason``, if any, stands under its title.

    Args:
        rows: of ``ranked_rows``.
        last: a further column, if any: its name and its cells.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("item", no_wrap=True)
    table.add_column("title", overflow="fold")
    table.add_column("score", justify="right")
    if last:
        table.add_column(last[0], overflow="fold")
    for place, row in enumerate(rows):
        reason = f"\n[dim]{escape(row['reason'])}[/]" if "reason" in row else ""
        cells = [str(place + 1), escape(row["item_id"]), escape(row["title"]) + reason, f"{row['score']:.2f}"]
        table.add_row(*cells, *([escape(last[1][place])] if last else []))
    return table
