"""``fedrec enrol``: who may take part in a federation; the operator's list."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.cli.server import ConfigFile
from fedrec.paths import make_app_importable
from fedrec.quiet import silence

if TYPE_CHECKING:
    from server.enrolment import Enrolled
    from server.settings import ServerSettings

ADD_EXAMPLES = """Examples:

\b
  fedrec enrol add shop-7 --node-key node.pub --reply-key reply.pub --config server.toml
      the two files that fedrec join tells a merchant to send; compare the fingerprint with them
"""
REVOKE_EXAMPLES = """Examples:

\b
  fedrec enrol revoke shop-7 --config server.toml
      refused from the next request on; to come back it makes new keys
"""
LIST_EXAMPLES = """Examples:

\b
  fedrec enrol list --config server.toml
  fedrec enrol list --config server.toml --json
      the same, for a monitor
"""
HEADER = ("name", "state", "online", "expires", "weight", "node key")

Name = Annotated[str, typer.Argument(help="what to call the client; public")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")]

enrol_app = typer.Typer(
    help="Which clients may take part; told to a running server at once.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@enrol_app.command("add", epilog=ADD_EXAMPLES)
@one_line_errors
def add_command(
    name: Name,
    node_key: Annotated[Path, typer.Option(help="its node.pub", metavar="FILE")],
    reply_key: Annotated[Path, typer.Option(help="its reply.pub", metavar="FILE")],
    weight: Annotated[float, typer.Option(help="public weight of its replies")] = 1.0,
    days: Annotated[int, typer.Option(help="how long it may take part")] = 398,
    config: ConfigFile = Path("server.toml"),
    as_json: AsJson = False,
) -> None:
    """Let a client take part. Takes the public halves of its keys and nothing else."""
    settings = _settings(config)
    from server.enrolment import enrol

    one = enrol(settings, name, node_key=node_key, reply_key=reply_key, weight=weight, days=days, now=_now())
    _tell([one], as_json=as_json)


@enrol_app.command("revoke", epilog=REVOKE_EXAMPLES)
@one_line_errors
def revoke_command(name: Name, config: ConfigFile = Path("server.toml"), as_json: AsJson = False) -> None:
    """Refuse a client from now on, and its keys for ever."""
    settings = _settings(config)
    from server.enrolment import revoke

    _tell([revoke(settings, name, now=_now())], as_json=as_json)


@enrol_app.command("list", epilog=LIST_EXAMPLES)
@one_line_errors
def list_command(config: ConfigFile = Path("server.toml"), as_json: AsJson = False) -> None:
    """Everybody who was ever enrolled; who is online, when a server runs; what expires soon."""
    settings = _settings(config)
    from server.enrolment import enrolled

    _tell(enrolled(settings, now=_now()), as_json=as_json)


def _settings(config: Path) -> "ServerSettings":
    silence()
    make_app_importable()
    from server.settings import load_server_settings

    return load_server_settings(config)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _tell(clients: "list[Enrolled]", *, as_json: bool) -> None:
    for one in clients:
        if one.warning:
            typer.echo(f"warning: {one.warning}", err=True)
    if as_json:
        typer.echo(json.dumps({"clients": [one.to_dict() for one in clients]}, indent=2))
        return
    rows = [HEADER, *(_row(one) for one in clients)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for row in rows:
        typer.echo("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def _row(one: "Enrolled") -> tuple[str, ...]:
    facts = one.to_dict()
    online = {True: "yes", False: "no", None: "no server"}[facts["online"]]
    return (
        facts["name"],
        facts["state"],
        online,
        facts["expires_on"] or "never",
        f"{facts['weight']:g}",
        facts["node_fingerprint"],
    )
