"""``fedrec store``: the merchant's own store of events, and what people allow to be done with theirs."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedrec.cli.data import CatalogueFile, EventMap, ItemMap, parse_mapping
from fedrec.cli.errors import one_line_errors
from fedrec.errors import ConfigError, RunError
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    from clients.serving.store import EventStore

IMPORT_EXAMPLES = """Examples:

\b
  fedrec store import shop.sqlite --data prepared/events.parquet
      makes the store and its key, shop.key, when there is none; a file that has grown adds what is new
  fedrec store import shop.sqlite --data orders.csv --map user_id=CustomerID --map item_id=SKU --kind purchase
      your own column names
  fedrec store import shop.sqlite --data events.parquet --catalogue catalogue.parquet
      refuse the file when it names an item that the catalogue lacks
"""
STATUS_EXAMPLES = """Examples:

\b
  fedrec store status shop.sqlite --json
      people, events, who said no, who is forgotten; exit code 2 when the file is damaged
"""
CHOOSE_EXAMPLES = """Examples:

\b
  fedrec store choose shop.sqlite --user - --no-training < id.txt
      leave this person out of the next training; ranking stays as it was
  fedrec store choose shop.sqlite --user 17850 --no-personalized
      give this person the list that everybody gets
"""
READMIT_EXAMPLES = """Examples:

\b
  fedrec store readmit shop.sqlite --user - < id.txt
      a forgotten person is back: events from now on are taken in, older ones never
"""

StoreFile = Annotated[Path, typer.Argument(help="the store's file, such as shop.sqlite", metavar="STORE")]
User = Annotated[str, typer.Option("--user", help="the person's id; - reads it from standard input", metavar="ID|-")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")]

store_app = typer.Typer(help="A merchant's own store of events.", no_args_is_help=True, rich_markup_mode=None)


@store_app.command("import", epilog=IMPORT_EXAMPLES)
@one_line_errors
def import_command(
    store: StoreFile,
    data: Annotated[Path, typer.Option(help="events: .parquet, .csv, .tsv (also .gz), .inter")],
    event_map: EventMap = None,
    kind: Annotated[str, typer.Option(help="of events that name none: view, cart, purchase, ...")] = "purchase",
    catalogue: CatalogueFile = None,
    item_map: ItemMap = None,
    as_json: AsJson = False,
) -> None:
    """Take in a file of events, all of it or nothing; those of forgotten people are dropped."""
    make_app_importable()
    from clients.serving.importing import import_events
    from clients.serving.store import EventStore
    from fedrec.data.catalogue import read_catalogue

    columns, item_columns = parse_mapping(event_map, flag="--map"), parse_mapping(item_map, flag="--map-catalogue")
    if item_columns and catalogue is None:
        raise ConfigError("--map-catalogue needs --catalogue")
    known = read_catalogue(catalogue, columns=item_columns).index if catalogue else None
    with EventStore.open(store) if store.exists() else EventStore.create(store) as opened:
        taken = import_events(opened, data, columns=columns, kind=kind, known_items=known)
    _tell(
        {"store": str(store), **taken._asdict()},
        f"{store}: {taken.added} events added, {taken.repeated} known already, {taken.forgotten} of forgotten people",
        as_json=as_json,
    )


@store_app.command("status", epilog=STATUS_EXAMPLES)
@one_line_errors
def status_command(store: StoreFile, as_json: AsJson = False) -> None:
    """Check the file and say how much it holds."""
    with open_store(store) as opened:
        if damage := opened.damage():
            raise RunError(f"{store}: is damaged: {damage}; restore a backup, or import the events into a new store")
        counts = opened.count()
    lines = [
        f"{store}: whole",
        f"people       {counts.people}, with {counts.events} events",
        f"said no      {counts.not_personalized} to a ranking of their own, {counts.not_training} to training",
        f"forgotten    {counts.forgotten}",
    ]
    if counts.unfinished:
        lines.append(f"unfinished   {counts.unfinished} forgotten whose bytes may be left; run this again")
    _tell({"store": str(store), **counts._asdict()}, "\n".join(lines), as_json=as_json)


@store_app.command("choose", epilog=CHOOSE_EXAMPLES)
@one_line_errors
def choose_command(
    store: StoreFile,
    user: User,
    personalized: Annotated[
        bool | None, typer.Option("--personalized/--no-personalized", help="a ranking of their own [as it is]")
    ] = None,
    training: Annotated[bool | None, typer.Option("--training/--no-training", help="training [as it is]")] = None,
    as_json: AsJson = False,
) -> None:
    """Note what a person allows; holds from the next request and the next training on."""
    with open_store(store) as opened:
        choice = opened.set_choice(id_of(user), personalized=personalized, training=training)
    said = [f"{name} {'yes' if allowed else 'no'}" for name, allowed in choice._asdict().items()]
    _tell({"store": str(store), **choice._asdict()}, f"{store}: {', '.join(said)}", as_json=as_json)


@store_app.command("readmit", epilog=READMIT_EXAMPLES)
@one_line_errors
def readmit_command(store: StoreFile, user: User, as_json: AsJson = False) -> None:
    """Take a forgotten person's events in again, from now on. They allow everything until they say otherwise."""
    with open_store(store) as opened:
        back = opened.readmit(id_of(user))
    said = "taken in again from now on" if back else "was not forgotten; nothing changed"
    _tell({"store": str(store), "readmitted": back}, f"{store}: {said}", as_json=as_json)


def open_store(path: Path) -> "EventStore":
    """Open a store that exists.

    Raises:
        RunError: the store or its key is missing, damaged or foreign.
    """
    make_app_importable()
    from clients.serving.store import EventStore

    return EventStore.open(path)


def id_of(user: str) -> str:
    """The id that was given, or the line on standard input where it was ``-``, so that no shell remembers it.

    Raises:
        ConfigError: the line is empty or not readable, or there are more.
    """
    if user != "-":
        return user
    try:
        line, more = sys.stdin.readline().rstrip("\r\n"), sys.stdin.read().strip()
    except UnicodeDecodeError:
        raise ConfigError("--user -: expected an id in UTF-8 on standard input") from None
    if not line:
        raise ConfigError("--user -: expected an id on standard input")
    if more:
        raise ConfigError("--user -: expected one id, found more lines; give them one by one")
    return line


def _tell(facts: dict[str, Any], text: str, *, as_json: bool) -> None:
    typer.echo(json.dumps(facts, indent=2) if as_json else text)
