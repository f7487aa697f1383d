"""Many clients train one small head in this process: real merchants, policies, ledgers and signed rounds.

As ``fedrec simulate`` does for a ranker's adapter, with the same code on both sides; only where the people come from
differs. Budgets may be ledgers that have paid for other training of the same people: then the epsilons compose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context

from clients.app import build_app
from clients.merchant import Merchant
from clients.replies import ReplyCache
from clients.training import Learner
from fedrec.agreement import Agreement, HeadSpec
from fedrec.code import code_digest
from fedrec.errors import ConfigError, RunError
from fedrec.privacy.ledger import Ledger, LedgerFiles
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
from fedrec.schema import AdapterSchema, Arrays, parameters_of, unflatten
from fedrec.signing import SigningKey
from server.admission import norm_bounds
from server.averaging import Averaging
from server.rounds import Conduct, Judge, run_rounds
from server.signer import Signer
from server.strategy import Federation, RoundRecord, initial_state
from simulations.local_grid import LocalGrid

_SERVER_KEY = "server.key"


@dataclass(frozen=True, eq=False)
class Head:
    """What is trained. Public.

    Attributes:
        spec: names it in the agreement.
        base_digest: SHA-256 of the rules by which it reads, 64 hex digits; a client's policy lists it as a base.
        schema: names and shapes of what is learned.
        start: where it begins.
    """

    spec: HeadSpec
    base_digest: str
    schema: AdapterSchema
    start: Arrays


@dataclass(frozen=True)
class Course:
    """How the rounds go. Public numbers.

    Attributes:
        run_id: names the run in the ledgers; one run is charged once, however often it is asked for.
        server_learning_rate: peak of Adam's step size, > 0.
        warmup_rounds: rounds of growth, >= 0.
        ema: decay of the published average, in [0, 1).
        seed: of who takes part in a run that is stamped NOT PRIVATE; never of noise.
    """

    run_id: str
    server_learning_rate: float
    warmup_rounds: int
    ema: float
    seed: int


@dataclass(frozen=True, eq=False)
class Budget:
    """What guards one client's people.

    Attributes:
        policy: None where the plan is stamped NOT PRIVATE.
        ledger: charged before each round, whatever else it has paid for.
    """

    policy: Policy | None
    ledger: Ledger


@dataclass(frozen=True, eq=False)
class Federated:
    """What came of it: the published arrays, and one record a round."""

    learned: Arrays
    records: tuple[RoundRecord, ...]


def federate_head(
    head: Head,
    learners: Sequence[Learner],
    *,
    plan: PrivacyPlan,
    course: Course,
    folder: Path,
    budgets: Sequence[Budget] | None = None,
    judge: Judge | None = None,
) -> Federated:
    """Run all rounds of a plan on a head, each client answering through Flower's client app.

    Args:
        head: what is trained.
        learners: one a client, with its people. Sensitive.
        plan: what each client promises its people.
        course: how the rounds go.
        folder: made by ``new_server``; replies go there.
        budgets: one a client, whose policies pin this folder's server; new ones, for this plan alone, when None.
        judge: measures the head after each round on public data; its ``panel_loss`` picks the round that is
            published. None publishes the last.

    Raises:
        RunError: a round that counts for nothing, as clients refused or broke off; its reasons are named.
        PrivacyError: a ledger or policy is not as it should be.
        ConfigError: another number of budgets than of clients.
    """
    key = SigningKey.load(folder / _SERVER_KEY)
    agreement = _agreement(head, plan, course, server_key=key.public)
    budgets = budgets or new_budgets(head, plan, folder, clients=len(learners))
    if len(budgets) != len(learners):
        raise ConfigError(f"{len(budgets)} budgets for {len(learners)} clients: expected one each")
    merchants = [
        Merchant(
            agreement,
            learner=learner,
            policy=budget.policy,
            ledger=budget.ledger,
            replies=ReplyCache(folder / f"reply-{course.run_id}-{client:05d}.safetensors"),
            partition=client,
        )
        for client, (learner, budget) in enumerate(zip(learners, budgets, strict=True))
    ]
    grid = LocalGrid(build_app(lambda context: merchants[_partition(context)]), clients=len(merchants))
    federation = _federation(head, agreement, course, clients=len(merchants))
    conduct = Conduct(Signer(key), judge=judge, epsilon_after=lambda rounds: plan.epsilon_after(rounds))
    measures = judge(head.start) if judge else {}
    start = initial_state(head.start, head.schema, measures=measures)
    state = run_rounds(grid, federation, conduct, state=start, save=lambda state: _refuse_void(state.records[-1]))
    return Federated(unflatten(state.best, head.schema), state.records)


def new_server(folder: Path) -> str:
    """Make a folder and the key of its server; returns the public half, which policies pin.

    Raises:
        RunError: the folder is there already, or cannot be made.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror}; choose another --out") from None
    return SigningKey.create(folder / _SERVER_KEY).public


def new_budgets(head: Head, plan: PrivacyPlan, folder: Path, *, clients: int) -> list[Budget]:
    """An empty ledger a client, and the strictest policy under which exactly this plan runs."""
    policy = None
    if plan.private:
        key = SigningKey.load(folder / _SERVER_KEY).public
        policy = Policy.for_plan(plan, base=head.base_digest, code=code_digest(), server_key=key, trust=plan.trust)
    budgets = []
    for client in range(clients):
        files = LedgerFiles.beside(folder / f"client-{client:05d}.sqlite")
        ledger = Ledger.create(files, dataset=f"simulated client {client}", policy=policy, durable=False)
        budgets.append(Budget(policy, ledger))
    return budgets


def _agreement(head: Head, plan: PrivacyPlan, course: Course, *, server_key: str) -> Agreement:
    return Agreement(
        run_id=course.run_id,
        base_digest=head.base_digest,
        adapter=head.spec,
        plan=plan,
        local_learning_rate=1.0,
        mask_last=False,
        negatives=None,
        seed=course.seed,
        server_key=server_key,
    )


def _federation(head: Head, agreement: Agreement, course: Course, *, clients: int) -> Federation:
    plan = agreement.plan
    return Federation(
        run_id=agreement.run_id,
        base_digest=agreement.base_digest,
        agreement_digest=agreement.digest(),
        schema=head.schema,
        bounds=norm_bounds(plan, parameters_of(head.schema)),
        clients=clients,
        clients_per_round=clients,
        rounds=plan.rounds,
        min_replies=1.0,  # nobody is lost on the way inside one process, and shared noise needs everybody
        learning_rate=course.server_learning_rate,
        warmup_rounds=course.warmup_rounds,
        ema=course.ema,
        seed=course.seed,
        averaging=Averaging(noise_std=plan.server_noise_std),
        noise_sharers=plan.noise_sharers,
    )


def _refuse_void(record: RoundRecord) -> None:
    """Stop at the first round in which somebody did not answer: inside one process no later one would go better."""
    if record.void:
        raise RunError(
            f"round {record.round_index}: {record.asked - record.admitted} of {record.asked} clients "
            f"did not take part: {dict(record.reasons)}"
        )


def _partition(context: Context) -> int:
    return int(context.node_config["partition-id"])
