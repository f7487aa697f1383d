"""``fedrec client``: the merchant's resident process."""

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    from clients.own import Own
    from clients.settings import ClientSettings

EXAMPLES = """Examples:

\b
  fedrec client --config shop-7/client.toml --check
      load everything, say what would be done, connect to nobody
  fedrec client --config shop-7/client.toml
      take part until stopped; comes back by itself when the connection breaks
"""


@one_line_errors
def client_command(
    config: Annotated[Path, typer.Option(help="client.toml that fedrec join wrote")],
    check: Annotated[bool, typer.Option("--check", help="load everything and connect to nobody")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --check: one JSON document on stdout")] = False,
) -> None:
    """Take part in a federation: train when the pinned server asks and the policy allows, and answer."""
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from clients.own import open_own
    from clients.resident import alone
    from clients.settings import load_client_settings

    settings = load_client_settings(config)
    if check:
        facts = _facts(settings, open_own(settings))
        typer.echo(json.dumps(facts, indent=2) if as_json else _text(facts))
        return
    with alone(config.parent):
        own = open_own(settings)
        typer.echo(_text(_facts(settings, own)), err=True)
        _serve(settings, own)


def _serve(settings: "ClientSettings", own: "Own") -> NoReturn:
    """Stay until SIGTERM or SIGINT, then end the process at once; a round that takes too long is abandoned with it."""
    from clients.app import build_app
    from clients.resident import link_of, stay

    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr, force=True)  # libraries set up their own
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    link = link_of(settings, own.invitation)
    if stay(build_app(lambda context: own.merchant), link, stop=stop):
        logging.info("stopped")
    else:
        logging.warning("stopped in the middle of a round; its charge stays booked")
    logging.shutdown()
    # A thread in a round cannot be ended otherwise, and to take torch apart in good order takes seconds. What is on
    # disk is as after a power cut, which it stands.
    os._exit(0)


def _facts(settings: "ClientSettings", own: "Own") -> dict[str, Any]:
    """What this client is, what it promised, and what it may still spend."""
    from fedrec.cli.privacy_ledger_facts import Source, facts_of
    from fedrec.cli.privacy_ledger_text import spent_of

    terms, ledger = own.invitation.terms, facts_of(Source(settings.ledger_files, own.policy))
    return {
        "name": settings.name,
        "federation": terms.name,
        "address": terms.address,
        "server_key": own.merchant.server_key,
        "fingerprint": own.invitation.fingerprint,
        "run_id": own.agreement.run_id,
        "private": own.agreement.plan.private,
        "statement": own.agreement.plan.statement(),
        "spent": spent_of(ledger) if own.policy else "nothing is counted",
        "epsilon": ledger["epsilon"] if own.policy else None,
        "max_epsilon": ledger["max_epsilon"],
        "delta": ledger["delta"],
        "rounds_charged": ledger["charged"],
    }


def _text(facts: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{facts['name']} in the federation {facts['federation']} at {facts['address']}",
            f"server key   {facts['server_key']}",
            f"fingerprint  {facts['fingerprint']}",
            f"promise      {facts['statement']}",
            f"spent        {facts['spent']}",
        ]
    )
