"""``fedrec privacy ledger``: look at a client's record of privacy spent, check it, copy it, settle a charge."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.cli.privacy_ledger_text import line_of, page_of
from fedrec.errors import ConfigError, PrivacyError
from fedrec.privacy.accounting import ACCOUNTANT, round_up
from fedrec.privacy.ledger import Ledger, LedgerFiles, State
from fedrec.privacy.ledger_access import accept_head
from fedrec.privacy.plan import RELATION, UNIT
from fedrec.privacy.policy import Policy, load_policy
from fedrec.privacy.stated import Statement, statement_under
from fedrec.signing import Purpose, is_signed

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


class Source(NamedTuple):
    """One ledger to look at, and the policy that goes with it."""

    files: LedgerFiles
    policy: Policy | None


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
    found = [facts_of(one) for one in _sources(source, policy=policy, key=key, witness=witness)]
    if as_json:
        typer.echo(json.dumps({"ledgers": found}, indent=2, allow_nan=False))
    elif source.is_dir():
        typer.echo("\n".join(line_of(facts) for facts in found))
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
    if accept_head_:
        if source.is_dir():
            raise ConfigError("--accept-head: takes one LEDGER, not a run")
        newest = accept_head(_files(source, key=key, witness=witness))
        typer.echo(
            f"accepted entry {newest.sequence} as the newest: lines missing after it can no longer be noticed here",
            err=True,
        )
    checks = [_checked(one) for one in _sources(source, policy=policy, key=key, witness=witness)]
    failed = sum(not check["ok"] for check in checks)
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "ledgers": checks}, indent=2))
    else:
        typer.echo(
            "\n".join(f"{'ok' if check['ok'] else 'FAILED':<7}{check['ledger']}: {check['detail']}" for check in checks)
        )
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
    opened = Ledger.open(_files(ledger, key=key, witness=witness), dataset=None, policy=None)
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
    if source.is_dir() != (client is not None):
        raise ConfigError("--client: goes with the folder of a run, and a run needs it")
    chosen = _sources(source, policy=policy, key=key, witness=witness)
    if client is not None and not 0 <= client < len(chosen):
        raise ConfigError(f"--client {client}: expected 0 to {len(chosen) - 1}")
    one = chosen[client or 0]
    Ledger.open(one.files, dataset=None, policy=one.policy).settle(entry, steps=steps, reason=reason)
    facts = facts_of(one)
    typer.echo(json.dumps(facts, indent=2, allow_nan=False) if as_json else page_of(facts))


def _sources(source: Path, *, policy: Path | None, key: Path | None, witness: Path | None) -> list[Source]:
    """The ledgers that were named: one, or all of a run."""
    if not source.is_dir():
        beside = source.with_name("policy.toml")
        path = policy or (beside if beside.exists() else None)
        return [Source(_files(source, key=key, witness=witness), load_policy(path) if path else None)]
    if key or witness:
        raise ConfigError("--key, --witness: go with a LEDGER; a run knows where its own are")
    from fedrec.workspace import ledger_files  # slow to import, and a single ledger does not need it

    if not (clients := _clients(source)):
        raise ConfigError(f"{source}: expected a ledger, or the folder of a run")
    path = policy or (source / "policy.toml")
    limits = load_policy(path) if policy or path.exists() else None
    return [Source(ledger_files(source, partition), limits) for partition in range(clients)]


def _clients(run: Path) -> int:
    """Clients of a run: as many as it was prepared with, even where every trace of the last one's ledger is gone."""
    from fedrec.workspace import client_count

    traces = (path.name for folder in ("ledger", "keys", "workspace/witness") for path in (run / folder).glob("*"))
    numbers = [int(found[1]) for name in traces if (found := re.match(r"client-(\d+)\.", name))]
    prepared = client_count(run) if (run / "workspace" / "people.safetensors").exists() else 0
    return max([prepared, *(number + 1 for number in numbers)])


def _files(ledger: Path, *, key: Path | None, witness: Path | None) -> LedgerFiles:
    beside = LedgerFiles.beside(ledger)
    return LedgerFiles(ledger, key or beside.key, witness or beside.witness)


def facts_of(source: Source) -> dict[str, Any]:
    """Everything ``show`` says, as JSON has it; epsilon is null where something went without noise."""
    ledger = Ledger.open(source.files, dataset=None, policy=source.policy)
    entries, spendings, signed = ledger.entries(), ledger.spendings(), ledger.countersigned()
    deltas = [entry.delta for entry in entries if entry.delta is not None]
    delta = source.policy.max_delta if source.policy else min(deltas, default=None)
    private = all(spending.noise_multiplier > 0 for spending in spendings)
    runs = {(entry.plan, entry.run) for entry in entries if entry.state == State.RESERVED}
    plain = Statement(delta or 1.0, None, ACCOUNTANT)
    stated = statement_under(source.policy, runs=len(runs)) if source.policy else plain
    ways = (stated, stated._replace(order=None))
    epsilon, if_fixed = (round_up(way.epsilon(spendings)) if private and delta else None for way in ways)
    limit = source.policy.max_epsilon if source.policy else None
    states = Counter(entry.state for entry in entries)
    return {
        "ledger": str(source.files.ledger),
        "dataset": ledger.dataset,
        "private": private,
        "epsilon": epsilon if spendings else 0.0,
        "epsilon_if_fixed": None if stated.order is None else if_fixed,
        "max_epsilon": limit,
        "delta": delta,
        "unit": UNIT,
        "relation": RELATION,
        "accountant": stated.accountant,
        "spendings": [spending._asdict() for spending in spendings],
        "charged": states[State.RESERVED],
        "released": states[State.RELEASED],
        "settled": states[State.SETTLED],
        "head": entries[-1].mac,
        "countersigned": next((entry.sequence for entry in entries if signed and entry.mac == signed.head), None),
        "entries": [entry._asdict() for entry in entries],
    }


def _checked(source: Source) -> dict[str, Any]:
    """Whether one ledger is intact, and what was found."""
    name = str(source.files.ledger)
    try:
        ledger = Ledger.open(source.files, dataset=None, policy=source.policy)
        signed = ledger.countersigned()
        if signed and source.policy and not _is_by(source.policy.server_key, signed.head, signed.signature):
            raise PrivacyError("the countersigned head was not signed by the policy's server_key")
        by = " and signed by the policy's server" if source.policy else ""
        told = f"countersigned head is in it{by}" if signed else "no server has countersigned it yet"
        number, head = len(ledger.entries()), ledger.head()
        return {"ledger": name, "ok": True, "entries": number, "head": head, "detail": f"{number} entries, {told}"}
    except PrivacyError as error:
        return {
            "ledger": name,
            "ok": False,
            "entries": None,
            "head": None,
            "detail": str(error).removeprefix(f"{name}: "),
        }


def _is_by(public: str, head: str, signature: str) -> bool:
    return is_signed(bytes.fromhex(head), signature, public=public, purpose=Purpose.LEDGER_HEAD)
