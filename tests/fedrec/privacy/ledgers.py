"""What the ledger's tests share: files, a policy around the small plan, and an attacker with an SQLite shell."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from fedrec.errors import PrivacyError
from fedrec.privacy.ledger import Ledger, LedgerFiles
from fedrec.privacy.ledger_store import _SCHEMA
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
from fedrec.signing import Purpose, SigningKey

DATA = "8e3f"
DAY = 86_400


class Clock:
    """A wall clock that a test sets."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def policy_for(plan: PrivacyPlan, **changes: object) -> Policy:
    """The strictest policy for a plan, with any value changed."""
    metrics = ("ndcg@10",) if plan.metric_releases else ()
    counts = plan.statistics_noise_multiplier is not None
    policy = Policy.for_plan(
        plan, base="ba" * 32, code="c0" * 32, server_key="5e" * 32, metrics=metrics, statistics=counts
    )
    return Policy.model_validate(policy.model_dump() | changes)


def generous(plan: PrivacyPlan, **changes: object) -> Policy:
    """The same without caps on rounds and steps, so that epsilon alone limits."""
    free = {f"max_{what}_{period}": 10**6 for what in ("steps", "rounds") for period in ("total", "per_day")}
    return policy_for(plan, **(free | changes))


def ledger_files(folder: Path) -> LedgerFiles:
    """Names that a careless URI or SQL string would trip over."""
    return LedgerFiles.beside(folder / "client 7?#'.sqlite")


def new_ledger(folder: Path, policy: Policy | None, **options: object) -> Ledger:
    return Ledger.create(ledger_files(folder), dataset=DATA, policy=policy, **{"durable": False, **options})


def reopened(ledger: Ledger, policy: Policy | None, **options: object) -> Ledger:
    return Ledger.open(ledger.files, dataset=DATA, policy=policy, **{"durable": False, **options})


def rewrite(path: Path, statement: str) -> None:
    """What someone with an editor can do: the triggers are no lock, and nobody leaves them off."""
    with sqlite3.connect(path) as connection:
        connection.executescript(f"DROP TRIGGER no_update; DROP TRIGGER no_delete; {statement};")
        connection.execute(_SCHEMA["no_delete"])
        connection.execute(_SCHEMA["no_update"])
    connection.close()


def signed_head(ledger: Ledger, folder: Path) -> tuple[str, str, str]:
    """A head of the ledger, a server's signature of it and the server's public key."""
    path = folder / "server.key"
    key = SigningKey.load(path) if path.exists() else SigningKey.create(path)
    head = ledger.head()
    return head, key.sign(bytes.fromhex(head), purpose=Purpose.LEDGER_HEAD), key.public


def charged_until_refused(ledger: Ledger, plan: PrivacyPlan, *, run: str) -> tuple[int, str]:
    """How many single steps a run of the plan was granted, and why no more."""
    for granted in range(plan.steps):
        try:
            ledger.charge(f"{run}/{granted}", plan.training(1), plan=plan)
        except PrivacyError as refusal:
            return granted, str(refusal)
    return plan.steps, ""


def uses(ledger: Ledger, plan: PrivacyPlan) -> list[Callable[[], object]]:
    """Everything that looks into a ledger."""
    return [
        ledger.spent,
        ledger.entries,
        ledger.head,
        lambda: ledger.charge("run/d", plan.training(1), plan=plan),
        lambda: ledger.release("run/a"),
        lambda: ledger.is_released("run/a"),
        lambda: ledger.settle(2, steps=0, reason="none"),
    ]
