"""``fedrec federation``: what the server's operator sets up before any merchant joins."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedrec.cli.data import parse_mapping
from fedrec.cli.errors import one_line_errors
from fedrec.cli.simulate import resolve_settings
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    from server.founding import Founded

EXAMPLES = """Examples:

\b
  fedrec federation new spring --base base --catalogue items.csv --clients 12 --people-per-client 200
         --server-keys server-keys --address fedrec.example.org:8443
      epsilon 8 over 30 rounds; send the folder spring/invitation to the merchants
  fedrec federation new spring ... --epsilon 3 --rounds 20 --config settings.toml
      less to ask for; other settings from a file, flags win over it
"""

federation_app = typer.Typer(
    help="Set up a federation on separate machines.", no_args_is_help=True, rich_markup_mode=None
)


@federation_app.callback()
def federation() -> None:
    """Set up a federation on separate machines."""


@federation_app.command("new", epilog=EXAMPLES)
@one_line_errors
def new_command(
    folder: Annotated[Path, typer.Argument(help="to make; must not exist; its name is the federation's")],
    base: Annotated[Path, typer.Option(help="what fedrec pretrain made")],
    catalogue: Annotated[Path, typer.Option(help="the items that the base was made for: CSV or Parquet")],
    clients: Annotated[int, typer.Option(help="merchants that will join")],
    people_per_client: Annotated[int, typer.Option(help="public nominal size of a merchant; nobody's true number")],
    server_keys: Annotated[Path, typer.Option(help="what fedrec keys server made; the private ones stay there")],
    address: Annotated[str, typer.Option(help="HOST:PORT that merchants connect to")],
    item_map: Annotated[
        list[str] | None, typer.Option("--map-catalogue", help="FIELD=COLUMN of the catalogue; repeatable")
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="budget of one person at one merchant [8]")] = None,
    delta: Annotated[float | None, typer.Option(help="failure probability of the guarantee [1e-5]")] = None,
    rounds: Annotated[int | None, typer.Option(help="rounds of the federation [30]")] = None,
    deadline: Annotated[float | None, typer.Option(help="seconds to wait for replies in a round [600]")] = None,
    no_dp: Annotated[bool, typer.Option("--no-dp", help="no privacy: stamps everything NOT PRIVATE")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags win over it")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Fix what will be agreed on, and make the invitation for merchants. Reads no private data."""
    flags = {
        "partition.clients": clients,
        "partition.people_per_client": people_per_client,
        "data.catalogue_columns": parse_mapping(item_map, flag="--map-catalogue") or None,
        "federation.rounds": rounds,
        "federation.deadline_s": deadline,
        "privacy.epsilon": epsilon,
        "privacy.delta": delta,
        "privacy.enabled": False if no_dp else None,
    }
    settings = resolve_settings(flags, config=config, out=None, resume=False)
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from server.founding import found

    founded = found(folder, settings, base=base, catalogue=catalogue, keys=server_keys, address=address)
    facts = _facts(founded, folder)
    typer.echo(json.dumps(facts, indent=2) if as_json else _text(facts))


def _facts(founded: "Founded", folder: Path) -> dict[str, Any]:
    agreement, terms = founded.agreement, founded.invitation.terms
    return {
        "federation": str(folder),
        "invitation": str(folder / "invitation"),
        "fingerprint": founded.invitation.fingerprint,
        "run_id": agreement.run_id,
        "server_key": agreement.server_key,
        "address": terms.address,
        "rounds": agreement.plan.rounds,
        "private": agreement.plan.private,
        "statement": agreement.plan.statement(),
        "metrics": list(agreement.metrics),
        "statistics": agreement.statistics is not None,
    }


def _text(facts: dict[str, Any]) -> str:
    """What a merchant will be asked for, and how they know that it is this operator who asks."""
    metrics = f", and noised {' and '.join(facts['metrics'])}" if facts["metrics"] else ""
    metrics += ", and once for noised counts of what follows what" if facts["statistics"] else ""
    noised = "a noised update" if facts["private"] else "an update as it is"
    return "\n".join(
        [
            f"{facts['federation']}: {facts['rounds']} rounds at {facts['address']}",
            "",
            f"Each merchant will be asked for {noised} in each round{metrics}.",
            facts["statement"],
            "",
            f"invitation   {facts['invitation']}: send it to the merchants; it holds no secret",
            f"fingerprint  {facts['fingerprint']}",
            "  tell it over another channel, such as the telephone; fedrec join compares it with --fingerprint",
            f"server key   {facts['server_key']}",
            "",
            f"Then: fedrec server, fedrec enrol add for each merchant, and fedrec run {facts['federation']}",
        ]
    )
