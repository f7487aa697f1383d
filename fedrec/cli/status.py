"""``fedrec status``: who is there, what was done, what was refused."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.errors import RunError
from fedrec.paths import make_app_importable

EXAMPLES = """Examples:

\b
  fedrec status --config server.toml
      the server, its clients, its traffic
  fedrec status federation --config server.toml
      also the rounds of a federation, and what was quarantined
  fedrec status --config server.toml --json
      the same, for a monitor; exit code 2 when the server is down
"""


@one_line_errors
def status_command(
    federation: Annotated[Path | None, typer.Argument(help="what fedrec federation new made")] = None,
    config: Annotated[Path, typer.Option(help="server.toml")] = Path("server.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Show the server's clients, rounds, traffic and quarantined replies."""
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from server.settings import load_server_settings
    from server.status import status_facts

    facts = status_facts(load_server_settings(config), federation)
    typer.echo(json.dumps(facts, indent=2) if as_json else _text(facts))
    parts = {"gateway": "the gateway", "superlink": "SuperLink"}
    down = [said for name, said in parts.items() if facts[name] == "down"]
    if down == ["SuperLink"]:
        raise RunError(
            f"{config}: SuperLink down; the server starts it again within two minutes; else see superlink.log"
        )
    if down:
        raise RunError(f"{config}: {' and '.join(down)} down; start the server with: fedrec server --config {config}")


def _text(facts: dict[str, Any]) -> str:
    lines = [f"server     {facts['address']}: gateway {facts['gateway']}, SuperLink {facts['superlink']}"]
    if traffic := facts["traffic"]:
        refused = _counts(traffic["refused"])
        lines += [
            f"traffic    {_size(traffic['bytes_in'])} in, {_size(traffic['bytes_out'])} out, "
            f"{traffic['requests']} requests; refused: {refused}"
        ]
    lines += ["", *_clients(facts["clients"])]
    if facts["federation"]:
        lines += ["", *_federation(facts["federation"])]
    return "\n".join(lines)


def _clients(clients: list[dict[str, Any]]) -> list[str]:
    if not clients:
        return ["clients    none enrolled; see: fedrec enrol add --help"]
    width = max(6, *(len(one["name"]) for one in clients))
    head = f"{'CLIENT':<{width}}  {'STATE':<8}  {'ONLINE':<7}  {'EXPIRES':<10}  WEIGHT"
    words = {True: "yes", False: "no", None: "unknown"}
    return [head] + [
        f"{one['name']:<{width}}  {one['state']:<8}  {words[one['online']]:<7}  "
        f"{one['expires_on'] or 'never':<10}  {one['weight']:g}"
        for one in clients
    ]


def _federation(facts: dict[str, Any]) -> list[str]:
    rounds = f"{facts['rounds']} of {facts['planned_rounds']} rounds, {facts['void_rounds']} void"
    if facts["epsilon_spent"] is not None:
        rounds += f", epsilon {facts['epsilon_spent']:.4g} spent where all were answered"
    lines = [
        f"federation {facts['folder']}: {rounds}",
        f"replies    {facts['admitted']} counted, {_size(facts['bytes_up'])}",
        f"set aside  {_counts(facts['quarantined'])}",
        f"guarantee  {facts['guarantee']}",
    ]
    if last := facts["last_round"]:
        quality = last.get("panel_ndcg@10")
        about = f", panel NDCG@10 {quality:.4f}" if quality is not None else ""
        lines.append(f"last round {last['admitted']} of {last['asked']} clients in {last['seconds']:.1f} s{about}")
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "none"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
