"""``fedrec data``: look at a data set, and clean it into what ``fedrec simulate`` reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.config import BUNDLED
from fedrec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fedrec.data.cleaning import Cleaned
    from fedrec.data.quality import QualityReport

data_app = typer.Typer(help="Look at a data set, and clean it for training.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(help="events: .parquet, .csv, .tsv (also .gz), .inter; or 'bundled'")]
CatalogueFile = Annotated[Path | None, typer.Option("--catalogue", help="items, same formats or .item")]
EventMap = Annotated[
    list[str] | None, typer.Option("--map", help="FIELD=COLUMN of the events, such as user_id=CustomerID; repeatable")
]
ItemMap = Annotated[list[str] | None, typer.Option("--map-catalogue", help="FIELD=COLUMN of the catalogue; repeatable")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")]


@data_app.command("check")
@one_line_errors
def check_command(
    path: Source = BUNDLED,
    catalogue: CatalogueFile = None,
    event_map: EventMap = None,
    item_map: ItemMap = None,
    out: Annotated[Path, typer.Option(help="folder for check.html and check.json")] = Path("runs/data-check"),
    as_json: AsJson = False,
) -> None:
    """Count what cleaning would drop, and show what looks wrong in the rest. Changes nothing."""
    from fedrec.data.quality import check

    report = check(_clean(path, catalogue=catalogue, event_map=event_map, item_map=item_map))
    _show(report, out, as_json=as_json)


@data_app.command("prepare")
@one_line_errors
def prepare_command(
    out: Annotated[Path, typer.Option(help="folder for events.parquet, catalogue.parquet, check.html, check.json")],
    path: Source = BUNDLED,
    catalogue: CatalogueFile = None,
    event_map: EventMap = None,
    item_map: ItemMap = None,
    as_json: AsJson = False,
) -> None:
    """Drop the rows that training would refuse, count them, and write the rest in fedrec's own columns."""
    from fedrec.data.cleaning import write_prepared
    from fedrec.data.quality import check

    _refuse_own_input(out, inputs=[Path(path), catalogue])
    cleaned = _clean(path, catalogue=catalogue, event_map=event_map, item_map=item_map)
    events, items = write_prepared(cleaned, out)
    _show(check(cleaned), out, as_json=as_json)
    typer.echo(f"next: fedrec simulate --data {events} --catalogue {items}", err=True)


def parse_mapping(pairs: list[str] | None, *, flag: str) -> dict[str, str]:
    """``["user_id=CustomerID"]`` as ``{"user_id": "CustomerID"}``.

    Raises:
        ConfigError: a pair has no ``=`` or an empty side, or a field comes twice.
    """
    columns: dict[str, str] = {}
    for pair in pairs or []:
        field, _, column = pair.partition("=")
        if not field or not column:
            raise ConfigError(f"{flag} {pair}: expected FIELD=COLUMN, such as user_id=CustomerID")
        if field in columns:
            raise ConfigError(f"{flag} {pair}: {field} is mapped twice")
        columns[field] = column
    return columns


def _clean(path: str, *, catalogue: Path | None, event_map: list[str] | None, item_map: list[str] | None) -> "Cleaned":
    from fedrec.data.cleaning import clean

    return clean(
        None if path == BUNDLED else Path(path),
        columns=parse_mapping(event_map, flag="--map"),
        catalogue=catalogue,
        catalogue_columns=parse_mapping(item_map, flag="--map-catalogue"),
    )


def _show(report: "QualityReport", out: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from fedrec.data.quality_report import print_report, render_json, write_report

    html, _ = write_report(report, out)
    if as_json:
        typer.echo(render_json(report))
    else:
        print_report(report, Console())
        typer.echo(f"\n{html}")


def _refuse_own_input(out: Path, *, inputs: list[Path | None]) -> None:
    """Cleaning a file onto itself would lose the rows it drops."""
    for name in ("events.parquet", "catalogue.parquet"):
        for path in inputs:
            if path is not None and path.resolve() == (out / name).resolve():
                raise DataError(f"--out {out}: would overwrite the input {path}; choose another folder")
