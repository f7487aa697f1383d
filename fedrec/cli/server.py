"""``fedrec server``: the operator's side of a federation, until it is told to stop."""

import json
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.errors import ConfigError
from fedrec.paths import make_app_importable
from fedrec.quiet import silence

if TYPE_CHECKING:
    from server.settings import ServerSettings

SERVER_EXAMPLES = """Examples:

\b
  fedrec server --config server.toml
      serve until SIGTERM; one line an event on stderr
  fedrec server --config server.toml --check
      read the settings and the keys, and start nothing

\b
The least that server.toml holds:
  keys = "keys"      what fedrec keys server made
  state = "state"    made when missing
"""

ConfigFile = Annotated[Path, typer.Option("--config", help="the server's settings", metavar="FILE")]


@one_line_errors
def server_command(
    config: ConfigFile = Path("server.toml"),
    check: Annotated[bool, typer.Option("--check", help="only say whether settings and keys are in order")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Let enrolled clients connect: Flower's SuperLink on loopback, behind a gateway of ours."""
    silence()
    make_app_importable()
    from server.service import serve
    from server.settings import load_server_settings

    settings = load_server_settings(config)
    facts = _facts(settings)
    if check:
        _tell(facts | {"in_order": "yes"}, as_json=as_json)
        return
    signal.signal(signal.SIGTERM, _leave)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for every request
    serve(settings, ready=lambda ports: _tell(facts, as_json=as_json))


def _facts(settings: "ServerSettings") -> dict[str, str]:
    """Where it listens and what clients pin.

    Raises:
        ConfigError: a key or certificate is not in order.
    """
    from fedrec.keycheck import look_at
    from fedrec.keyfiles import SERVER_PUB, read_signing_public
    from server.gateway_settings import PRIVATE_HOST

    seen = look_at(settings.keys, now=datetime.now(UTC))
    if seen.problems:
        raise ConfigError(f"{settings.keys}: {'; '.join(seen.problems)}")
    for warning in seen.warnings:
        typer.echo(f"warning: {warning}", err=True)
    return {
        "clients": f"https://{settings.host}:{settings.port}",
        "private": f"http://{PRIVATE_HOST}:{settings.private_port}",
        "server_key": read_signing_public(settings.keys / SERVER_PUB),
    }


def _tell(facts: dict[str, str], *, as_json: bool) -> None:
    width = max(map(len, facts))
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())
    typer.echo(json.dumps(facts, indent=2) if as_json else text)
    sys.stdout.flush()


def _leave(number: int, frame: object) -> NoReturn:
    """Until the gateway listens for signals itself, a SIGTERM ends what was started, and then us."""
    del number, frame
    raise SystemExit(0)
