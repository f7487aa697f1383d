"""``fedrec join``: a merchant accepts an invitation, on its own machine."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedrec.cli.data import parse_mapping
from fedrec.cli.errors import one_line_errors
from fedrec.config_policy import MIN_PEOPLE
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    from clients.joining import Joined

EXAMPLES = """Examples:

\b
  fedrec join invitation --data events.csv --name shop-7 --out shop-7
      keys, policy, ledger and client.toml; nothing leaves this machine
  fedrec join invitation --data events.csv --name shop-7 --out shop-7 --max-epsilon 4 --fingerprint 9f0c...
      only if it asks for no more, and is what the operator read out to you
  fedrec join invitation --data orders.csv --map user_id=CustomerID --map item_id=SKU --name shop-7 --out shop-7
      your own column names
  fedrec join invitation --store shop.sqlite --name shop-7 --out shop-7
      train on your own store of events: without those who said no, or are forgotten
  fedrec join autumn --store shop.sqlite --name shop-7 --out shop-7-autumn --ledger shop-7/ledger.sqlite
      a second federation: what was spent on the same people goes on being counted
"""


@one_line_errors
def join_command(
    invitation: Annotated[Path, typer.Argument(help="folder that the operator sent", metavar="INVITATION")],
    name: Annotated[str, typer.Option(help="what the operator will call you; public")],
    out: Annotated[Path, typer.Option(help="folder to make; must not exist")],
    data: Annotated[Path | None, typer.Option(help="your events: CSV or Parquet; stays where it is")] = None,
    store: Annotated[Path | None, typer.Option(help="or your own store of events; stays where it is")] = None,
    event_map: Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN of the events; repeatable")] = None,
    max_epsilon: Annotated[float | None, typer.Option(help="refuse a federation that asks for more")] = None,
    min_people: Annotated[int, typer.Option(help="no training with fewer people than this", min=1)] = MIN_PEOPLE,
    ledger: Annotated[
        Path | None, typer.Option(help="of the same people, who took part in a federation before")
    ] = None,
    fingerprint: Annotated[str | None, typer.Option(help="of the invitation, as the operator told you")] = None,
    certificate_request: Annotated[
        bool, typer.Option("--certificate-request", help="also a TLS key and a request, where the server asks for it")
    ] = False,
    allow_not_private: Annotated[
        bool, typer.Option("--allow-not-private", help="take part in a federation that protects nobody")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Check an invitation, make what a client needs, and say what you agree to. Sends nothing."""
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from clients.joining import Wishes, join

    joined = join(
        invitation,
        out,
        name=name,
        events=data,
        store=store,
        ledger=ledger,
        columns=parse_mapping(event_map, flag="--map"),
        wishes=Wishes(min_people, max_epsilon, fingerprint, allow_not_private),
        certificate_request=certificate_request,
    )
    facts = _facts(joined, out, ledger=ledger, certificate_request=certificate_request)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _show(facts, compared=fingerprint is not None)


def _facts(joined: "Joined", out: Path, *, ledger: Path | None, certificate_request: bool) -> dict[str, Any]:
    from fedrec.keycheck import node_fingerprint
    from fedrec.keyfiles import NODE_PUB, REPLY_PUB, TLS_CSR

    agreement = joined.agreement
    names = [NODE_PUB, REPLY_PUB, *([TLS_CSR] if certificate_request else [])]
    return {
        "folder": str(out),
        "fingerprint": joined.fingerprint,
        "run_id": agreement.run_id,
        "server_key": agreement.server_key,
        "ledger": str(ledger or out / "ledger.sqlite"),
        "private": agreement.plan.private,
        "statement": agreement.plan.statement(),
        "rounds": agreement.plan.rounds,
        "metrics": list(agreement.metrics),
        "statistics": agreement.statistics is not None,
        "people": joined.people,
        "cleaning": [asdict(rule) for rule in joined.rules],
        "node_fingerprint": node_fingerprint(out / "keys" / NODE_PUB),
        "send": [str(out / "keys" / name) for name in names],
        "next": f"fedrec client --config {shlex.quote(str(out / 'client.toml'))}",
    }


def _show(facts: dict[str, Any], *, compared: bool) -> None:
    """What was dropped, what is agreed to, what to send, what to do next."""
    dropped = [rule for rule in facts["cleaning"] if rule["dropped"]]
    width = max((len(f"{rule['dropped']:,}") for rule in dropped), default=0)
    metrics = f", and noised {' and '.join(facts['metrics'])}" if facts["metrics"] else ""
    metrics += ", and once noised counts of what follows what" if facts["statistics"] else ""
    lines = [
        "Dropped from your events:" if dropped else "Nothing was dropped from your events.",
        *(f"  {rule['dropped']:>{width},}  {rule['rule']}: {rule['description']}" for rule in dropped),
        f"{facts['people']} people take part. Nobody else learns this number.",
        "",
        f"You agree to: {facts['rounds']} rounds, in which a noised update leaves this machine{metrics}."
        if facts["private"]
        else f"You agree to: {facts['rounds']} rounds, in which an update leaves this machine as it is{metrics}.",
        facts["statement"],
        f"policy.toml in {facts['folder']} allows this and no more; {facts['ledger']} records what was spent."
        if facts["private"]
        else "There is no policy, and nothing bounds what the updates tell.",
        "",
        f"fingerprint  {facts['fingerprint']}",
        "  the one that you were told" if compared else "  ask the operator for theirs, over another channel; compare",
        "",
        "Send to the operator: " + ", ".join(facts["send"]),
        f"  and over the other channel the fingerprint of the first: {facts['node_fingerprint']}",
        "Nothing else in that folder is for anybody.",
        f"Then: {facts['next']}",
    ]
    typer.echo("\n".join(lines))
