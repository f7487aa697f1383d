"""``fedrec privacy ledger``: look at a client's record of privacy spent, check it, copy it, settle a charge."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.cli.privacy_ledger_text import line_of, page_of
from fedrec.errors import ConfigError, PrivacyError

SHOW_EXAMPLES = """Examples:

\b
  fedrec privacy ledger show ledger.sqlite
      what was spent, and what policy.toml beside it leaves
  fedrec privacy ledger show runs/eps3
      every simulated client of a run, a line each
  fedrec privacy ledger show ledger.sqlite --policy stricter.toml --json
      every entry, as one JSON document
"""
VERIFY_EXAMPLES = """Examples:

\b
  fedrec privacy ledger verify ledger.sqlite
      every line, the witness, the server's countersignature; exit code 3 when one does not hold
  fedrec privacy ledger verify runs/eps3
      every ledger of a run
  fedrec privacy ledger verify ledger.sqlite --accept-head
      the witness was lost: make a new one from the ledger as it stands
"""
BACKUP_EXAMPLES = """Examples:

\b
  fedrec privacy ledger backup ledger.sqlite backups/monday.sqlite
      safe while the client runs; a plain copy is not
"""
RECONCILE_EXAMPLES = """Examples:

\b
  fedrec privacy ledger reconcile ledger.sqlite --entry 7 --steps 0 --reason "power cut before the first step"
      the charge of entry 7 was not used, and its result will never be sent
"""

LedgerOrRun = Annotated[Path, typer.Argument(help="a ledger file, or the folder of a run", metavar="LEDGER|RUN")]
LedgerFile = Annotated[Path, typer.Argument(help="a ledger file", metavar="LEDGER")]
KeyFile = Annotated[Path | None, typer.Option("--key", help="a LEDGER's key [NAME.key beside it]")]
WitnessFile = Annotated[Path | None, typer.Option("--witness", help="a LEDGER's witness [NAME.witness.json beside it]")]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="limits to show [policy.toml beside it, if any]")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")]

ledger_app = typer.Typer(help="A client's own record of privacy spent.", no_args_is_help=True, rich_markup_mode=None)


@ledger_app.command("show", epilog=SHOW_EXAMPLES)
@one_line_errors
def show_command(
    source: LedgerOrRun,
    policy: PolicyFile = None,
    key: KeyFile = None,
    witness: WitnessFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what was spent on whom, and how much the policy leaves; checks every line first."""
    from fedrec.cli.privacy_ledger_facts import facts_of, never_asked, sources_of

    found = [facts_of(one) for one in sources_of(source, policy=policy, key=key, witness=witness)]
    if as_json:
        typer.echo(json.dumps({"ledgers": found}, indent=2, allow_nan=False))
    elif source.is_dir():
        typer.echo("\n".join([*(line_of(facts) for facts in found), *never_asked(source, asked=len(found))]))
    else:
        typer.echo(page_of(found[0]))


@ledger_app.command("verify", epilog=VERIFY_EXAMPLES)
@one_line_errors
def verify_command(
    source: LedgerOrRun,
    accept_head_: Annotated[
        bool, typer.Option("--accept-head", help="make a missing or damaged witness of a LEDGER anew")
    ] = False,
    policy: PolicyFile = None,
    key: KeyFile = None,
    witness: WitnessFile = None,
    as_json: AsJson = False,
) -> None:
    """Check every line, the witness and the server's countersignature. Exit code 3 when one does not hold."""
    from fedrec.cli.privacy_ledger_facts import check_of, files_of, never_asked, sources_of
    from fedrec.privacy.ledger_access import accept_head

    if accept_head_:
        if source.is_dir():
            raise ConfigError("--accept-head: takes one LEDGER, not a run")
        newest = accept_head(files_of(source, key=key, witness=witness))
        typer.echo(
            f"accepted entry {newest.sequence} as the newest: lines missing after it can no longer be noticed here",
            err=True,
        )
    checks = [check_of(one) for one in sources_of(source, policy=policy, key=key, witness=witness)]
    failed = sum(not check["ok"] for check in checks)
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "ledgers": checks}, indent=2))
    else:
        lines = [f"{'ok' if check['ok'] else 'FAILED':<7}{check['ledger']}: {check['detail']}" for check in checks]
        typer.echo("\n".join([*lines, *never_asked(source, asked=len(checks))]))
    if failed:
        raise PrivacyError(f"{failed} of {len(checks)} ledgers failed: do not train until this is explained")


@ledger_app.command("backup", epilog=BACKUP_EXAMPLES)
@one_line_errors
def backup_command(
    ledger: LedgerFile,
    target: Annotated[Path, typer.Argument(help="a file that does not exist yet")],
    key: KeyFile = None,
    witness: WitnessFile = None,
    as_json: AsJson = False,
) -> None:
    """Copy a ledger, while it is in use if need be, and verify the copy. Keep its key somewhere else."""
    from fedrec.cli.privacy_ledger_facts import files_of
    from fedrec.privacy.ledger import Ledger

    opened = Ledger.open(files_of(ledger, key=key, witness=witness), dataset=None, policy=None)
    opened.backup(target)
    facts = {"ledger": str(ledger), "target": str(target), "bytes": target.stat().st_size}
    without = "the key and the witness are not in it; a copy that is older than the witness will be refused"
    typer.echo(json.dumps(facts, indent=2) if as_json else f"{target}: {facts['bytes']} bytes, verified; {without}")


@ledger_app.command("reconcile", epilog=RECONCILE_EXAMPLES)
@one_line_errors
def reconcile_command(
    source: LedgerOrRun,
    entry: Annotated[int, typer.Option(help="number of a reserved line whose result was never sent")],
    steps: Annotated[int, typer.Option(help="steps that were taken all the same")],
    reason: Annotated[str, typer.Option(help="goes on record")],
    client: Annotated[int | None, typer.Option(help="which client of a RUN, from 0")] = None,
    policy: PolicyFile = None,
    key: KeyFile = None,
    witness: WitnessFile = None,
    as_json: AsJson = False,
) -> None:
    """Give back the steps that a charge did not use. Nothing can be sent on that charge afterwards."""
    from fedrec.cli.privacy_ledger_facts import clients_of, facts_of, sources_of
    from fedrec.privacy.ledger import Ledger

    if source.is_dir() != (client is not None):
        raise ConfigError("--client: goes with the folder of a run, and a run needs it")
    if client is not None and client not in range(clients := clients_of(source)):
        raise ConfigError(f"--client {client}: expected 0 to {clients - 1}")
    one = sources_of(source, policy=policy, key=key, witness=witness, client=client)[0]
    Ledger.open(one.files, dataset=None, policy=one.policy).settle(entry, steps=steps, reason=reason)
    facts = facts_of(one)
    typer.echo(json.dumps(facts, indent=2, allow_nan=False) if as_json else page_of(facts))
