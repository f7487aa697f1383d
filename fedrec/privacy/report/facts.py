"""Read what a report is about: a run folder, or one ledger with its policy."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fedrec import __version__
from fedrec.errors import ConfigError, PrivacyError, RunError
from fedrec.privacy.ledger import Entry, Ledger, LedgerFiles
from fedrec.privacy.policy import Policy
from fedrec.privacy.report.document import AuditFacts, Facts
from fedrec.privacy.report.findings import most_spent
from fedrec.privacy.report.tally import ledger_facts, timeline

if TYPE_CHECKING:
    from fedrec.agreement import Agreement

AUDIT = "audit.json"
WROTE = "code that wrote this report"
_LIBRARIES = ("dp-accounting", "opacus", "torch", "numpy", "cryptography", "pydantic")


def facts_of_run(run: Path) -> Facts:
    """Read every client's ledger of a simulated run, each verified, with the agreement and the policy.

    Raises:
        RunError: not a run folder, or its agreement, settings or audit cannot be read.
        PrivacyError: a ledger is missing, altered or rolled back, or the plan's claim is untrue.
    """
    from fedrec.agreement import FILE, read_agreement  # here: they load torch
    from fedrec.workspace import policy_of

    agreement = read_agreement(run)
    policy = policy_of(run, agreement.plan)
    digests = {
        "plan": agreement.plan.digest(),
        "agreement": _file_digest(run / FILE),
        "base": agreement.base_digest,
        "config": _file_digest(run / "config.toml"),
    }
    books = {name: ledger.entries() for name, ledger in run_ledgers(run, agreement).items()}
    return _facts(
        books,
        source="run",
        name=agreement.run_id,
        policy=policy,
        plan=agreement.plan.to_dict(),
        digests=digests,
        audit=_audit(run / AUDIT),
    )


def facts_of_ledger(files: LedgerFiles, policy: Policy | None) -> Facts:
    """Read one ledger.

    Args:
        policy: what it is judged by; None only for a ledger whose charges carried no noise.

    Raises:
        ConfigError: no policy, and charges with noise: epsilon is stated at the policy's delta.
        PrivacyError: the ledger is missing, altered or rolled back.
    """
    entries = Ledger.open(files, dataset=None, policy=policy).entries()
    if policy is None and any(entry.noise_multiplier > 0 for entry in entries):
        raise ConfigError(f"{files.ledger}: epsilon is stated at a policy's delta; name the policy with --policy")
    return _facts(
        {files.ledger.name: entries},
        source="ledger",
        name=files.ledger.name,
        policy=policy,
        plan=None,
        digests={},
        audit=_audit(files.ledger.parent / AUDIT),
    )


def run_ledgers(run: Path, agreement: "Agreement") -> dict[str, Ledger]:
    """Open the ledger of every client that the run was prepared with; whoever was never asked gets one here.

    Raises:
        RunError: the workspace cannot be read.
        PrivacyError: a ledger is missing, altered or rolled back, or there are more than clients.
    """
    from fedrec.workspace import client_count, ledger_files, ledger_of

    files = [ledger_files(run, at) for at in range(client_count(run))]
    _check_no_other(files)
    return {each.ledger.stem: ledger_of(run, at, agreement.plan) for at, each in enumerate(files)}


def _check_no_other(files: Sequence[LedgerFiles]) -> None:
    """Refuse traces of a client that is not counted; a missing one is refused where its ledger is opened."""
    for of_all in zip(*files, strict=True):
        first = of_all[0]
        if others := sorted(set(first.parent.glob(f"client-*{first.suffix}")) - set(of_all)):
            raise PrivacyError(
                f"{others[0]}: of a client that the workspace does not have, expected {len(of_all)} clients; "
                "restore the run from a backup"
            )


def _facts(
    books: Mapping[str, Sequence[Entry]],
    *,
    source: str,
    name: str,
    policy: Policy | None,
    plan: dict[str, Any] | None,
    digests: dict[str, str],
    audit: AuditFacts | None,
) -> Facts:
    """Everything in one object; a charge without noise anywhere leaves no guarantee to state."""
    from fedrec.code import code_digest

    ledgers = tuple(ledger_facts(entries, name=title) for title, entries in books.items())
    private = policy is not None and all(g.noise_multiplier > 0 for one in ledgers for g in one.groups)
    first = most_spent(ledgers, policy) if policy is not None and private else ledgers[0]
    digests = {**digests, **({"policy": policy.digest()} if policy else {}), WROTE: code_digest()}
    values = {
        "source": source,
        "name": name,
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "private": private,
        "delta": policy.max_delta if policy is not None and private else None,
        "plan": plan,
        "policy": policy,
        "ledgers": ledgers,
        "timeline_of": first.name,
        "timeline": timeline(books[first.name], first) if private else (),
        "audit": audit,
        "digests": digests,
        "versions": _versions(),
    }
    try:
        return Facts.model_validate(values)
    except ValidationError as error:  # numbers beyond what a report may state
        raise PrivacyError(f"{name}: {error.errors(include_url=False, include_input=False)[0]['msg']}") from None


def _audit(path: Path) -> AuditFacts | None:
    """What the audit left beside; None when there was none."""
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        checks = values["checks"]
        kept = {key: values[key] for key in AuditFacts.model_fields if key in values and key != "checks"}
        failed = tuple(str(check["name"]) for check in checks if not check["passed"])
        return AuditFacts.model_validate({**kept, "failed_checks": failed, "checks": len(checks)})
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise RunError(f"{path}: not a usable audit: {str(error).splitlines()[0]}; audit again") from None


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


def _versions() -> dict[str, str]:
    own = {"fedrec": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in _LIBRARIES}
