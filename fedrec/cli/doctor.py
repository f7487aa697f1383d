"""``fedrec doctor``: is this machine ready, and if not, what to do."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.config import read_toml
from fedrec.errors import ConfigError
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    from fedrec.doctor import Check, Finding

EXAMPLES = """Examples:

\b
  fedrec doctor
      Python, packages, disk, GPU
  fedrec doctor --config client.toml
      also keys, invitation, policy, ledger, and whether the server can be reached
  fedrec doctor --config server.toml --json
      for a monitor; exit code 2 when something failed
"""


@one_line_errors
def doctor_command(
    config: Annotated[
        Path | None, typer.Option("--config", help="server.toml or client.toml; without it the machine alone")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Check everything that a server or a client needs; say what is wrong and how to mend it. Changes nothing."""
    from fedrec.doctor import State, environment_checks, examine

    checks = environment_checks(config.parent if config else Path.cwd())
    if config is not None:
        checks |= _checks_of(config)
    findings = examine(checks)
    wrong = [one.check for one in findings if one.state is State.FAILED]
    document = {"failed": len(wrong), "checks": [one.to_dict() for one in findings]}
    typer.echo(json.dumps(document, indent=2) if as_json else _page(findings))
    if wrong:
        raise ConfigError(f"{len(wrong)} of {len(findings)} checks failed: {', '.join(dict.fromkeys(wrong))}")


def _checks_of(config: Path) -> dict[str, "Check"]:
    """What a settings file asks for: a client's names its events, a server's its state."""
    values, now = read_toml(config), datetime.now(UTC)
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    if "events" in values or "dataset" in values:
        from clients.doctoring import client_checks
        from clients.settings import load_client_settings

        return client_checks(load_client_settings(config), now=now)
    if "state" in values:
        from server.doctoring import server_checks
        from server.settings import load_server_settings

        return server_checks(load_server_settings(config), now=now)
    raise ConfigError(f"{config}: expected a server.toml with state = ..., or a client.toml with events = ...")


def _page(findings: Iterable["Finding"]) -> str:
    lines = []
    for one in findings:
        lines.append(f"{one.state:<8} {one.check:<12} {one.said}")
        lines += [f"{'':<21} mend: {one.mend}"] if one.mend else []
    return "\n".join(lines)
