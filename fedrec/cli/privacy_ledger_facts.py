"""What ``fedrec privacy ledger`` finds: the ledgers that were named, what each holds, and whether it is intact."""

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from fedrec.errors import ConfigError, PrivacyError
from fedrec.privacy.accounting import ACCOUNTANT, round_up
from fedrec.privacy.ledger import Ledger, LedgerFiles, State
from fedrec.privacy.plan import RELATION, UNIT
from fedrec.privacy.policy import Policy, load_policy
from fedrec.privacy.stated import Statement, statement_under
from fedrec.signing import Purpose, is_signed


class Source(NamedTuple):
    """One ledger to look at, and the policy that goes with it."""

    files: LedgerFiles
    policy: Policy | None


def sources_of(
    source: Path, *, policy: Path | None, key: Path | None, witness: Path | None, client: int | None = None
) -> list[Source]:
    """The ledgers that were named: one, or of a run those of all clients that were ever asked, or of one client.

    Raises:
        ConfigError: neither is there, or a key or witness was given with a run.
        PrivacyError: the policy cannot be read.
    """
    if not source.is_dir():
        beside = source.with_name("policy.toml")
        path = policy or (beside if beside.exists() else None)
        return [Source(files_of(source, key=key, witness=witness), load_policy(path) if path else None)]
    if key or witness:
        raise ConfigError("--key, --witness: go with a LEDGER; a run knows where its own are")
    from fedrec.workspace import ledger_files, was_asked  # slow to import, and a single ledger does not need it

    if not (clients := clients_of(source)):
        raise ConfigError(f"{source}: expected a ledger, or the folder of a run")
    path = policy or (source / "policy.toml")
    limits = load_policy(path) if policy or path.exists() else None
    asked = [at for at in range(clients) if was_asked(source, at)] if client is None else [client]
    return [Source(ledger_files(source, partition), limits) for partition in asked]


def clients_of(run: Path) -> int:
    """Clients of a run: as many as it was prepared with, even where every trace of the last one's ledger is gone."""
    from fedrec.workspace import client_count

    traces = (path.name for folder in ("ledger", "keys", "workspace/witness") for path in (run / folder).glob("*"))
    numbers = [int(found[1]) for name in traces if (found := re.match(r"client-(\d+)\.", name))]
    prepared = client_count(run) if (run / "workspace" / "people.safetensors").exists() else 0
    return max([prepared, *(number + 1 for number in numbers)])


def never_asked(source: Path, *, asked: int) -> list[str]:
    """A line on the clients of a run that have no ledger yet; nothing where all have, or for a single ledger."""
    never = clients_of(source) - asked if source.is_dir() else 0
    return [f"{never} more clients were never asked: nothing was spent on their people"] if never else []


def files_of(ledger: Path, *, key: Path | None, witness: Path | None) -> LedgerFiles:
    """A ledger's key and witness: where they were said to be, else beside it."""
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


def check_of(source: Source) -> dict[str, Any]:
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
