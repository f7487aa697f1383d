"""``fedrec run``: the rounds of a federation across machines."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.errors import ConfigError
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    from fedrec.agreement import Agreement
    from server.strategy import RoundRecord, ServerState

EXAMPLES = """Examples:

\b
  fedrec run federation --config server.toml
      every round of the plan, with whoever is enrolled and online
  fedrec run federation --config server.toml --rounds 5
      stop after round 5
  fedrec run federation --config server.toml --resume
      go on after a stop or a crash, each round once

Exit code 2 when the run failed, 3 when too many clients are out of budget.
"""


@one_line_errors
def run_command(
    folder: Annotated[Path, typer.Argument(help="what fedrec federation new made", metavar="FEDERATION")],
    config: Annotated[Path, typer.Option(help="server.toml of the running server")] = Path("server.toml"),
    rounds: Annotated[int | None, typer.Option(help="stop after this round of the plan [all]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a federation in which rounds were run")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Train with the enrolled clients, and publish the best adapter as FEDERATION/adapter.safetensors."""
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from fedrec.agreement import read_agreement
    from fedrec.report.progress import Progress
    from server.deployment import run_federation
    from server.settings import load_server_settings
    from server.telling import round_text

    settings, agreement = load_server_settings(config), read_agreement(folder)
    planned = agreement.plan.rounds
    last = planned if rounds is None else rounds
    if not 1 <= last <= planned:
        raise ConfigError(f"--rounds {rounds}: expected 1 to {planned}, the rounds of the agreed plan")
    with Progress() as progress, progress.stage("federation", total=last) as stage:

        def on_round(record: "RoundRecord") -> None:
            stage.move_to(record.round_index, text=round_text(record, agreement.plan))

        state = run_federation(folder, settings, until_round=last, resume=resume, on_round=on_round)
    facts = _facts(folder, agreement, state)
    typer.echo(json.dumps(facts, indent=2) if as_json else _text(facts, agreement, f"{folder} --config {config}"))


def _facts(folder: Path, agreement: "Agreement", state: "ServerState") -> dict[str, Any]:
    """What came of it, for a script."""
    records = state.records
    reasons: dict[str, int] = {}
    for record in records:
        for reason, count in record.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    plan = agreement.plan
    privacy = None
    if plan.private:
        names = ("delta", "unit", "relation", "accountant", "noise_multiplier", "clip_norm", "sampling_rate")
        privacy = {"epsilon": records[-1].epsilon_spent if records else 0.0} | {
            name: getattr(plan, name) for name in names
        }
    return {
        "run_id": agreement.run_id,
        "rounds": state.round_index,
        "planned_rounds": plan.rounds,
        "void_rounds": sum(record.void for record in records),
        "admitted": sum(record.admitted for record in records),
        "quarantined": reasons,
        "published_round": state.best_round,
        "adapter": str(folder / "adapter.safetensors"),
        "seconds": round(sum(record.seconds for record in records), 3),
        "bytes_up": sum(record.bytes_up for record in records),
        "privacy": privacy,
    }


def _text(facts: dict[str, Any], agreement: "Agreement", named: str) -> str:
    """The same for a person, who will type what is ``named`` again to go on."""
    set_aside = ", ".join(f"{count} {reason}" for reason, count in sorted(facts["quarantined"].items())) or "none"
    best, done = facts["published_round"], f"{facts['rounds']} of {facts['planned_rounds']}"
    published = f"of round {best}" if best else "the base: no round did better on the panel"
    lines = [
        f"rounds    {done}, {facts['void_rounds']} void, {facts['seconds']:.1f} s",
        f"replies   {facts['admitted']} counted; set aside: {set_aside}",
        f"adapter   {facts['adapter']}, {published}",
        f"privacy   {agreement.plan.statement()}",
    ]
    if facts["rounds"] < facts["planned_rounds"]:
        lines.append(f"next      fedrec run {named} --resume")
    return "\n".join(lines)
