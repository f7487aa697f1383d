"""A head trained over clients: real merchants, ledgers, policies and signed rounds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.clicking import ClickLearner
from clients.training import Learner
from fedrec.agreement import Agreement, HeadSpec, agreed_ranker, write_agreement
from fedrec.code import code_digest
from fedrec.errors import ConfigError, RunError
from fedrec.evaluation.calibration import area_under_curve
from fedrec.model.clicks import ClickHead
from fedrec.model.impressions import Impressions
from fedrec.privacy.accounting import composed_epsilon
from fedrec.privacy.ledger import Ledger, LedgerFiles
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
from fedrec.schema import Arrays, flatten
from simulations.heads import Budget, Federated, federate_head, new_budgets, new_server
from tests.tiny_clicks import COURSE, SPEC, clicks, columns, head, impressions
from tests.tiny_ranker import agreement, open_plan, private_plan

EVERYONE = impressions(*[3, 1, 2, 5] * 60)
CLIENTS = 3
ROUNDS = 4
_PRIVATE = private_plan(expected_people=80)
_OPEN = open_plan(expected_people=80)


def _learners(clients: int = CLIENTS) -> list[Learner]:
    parts = np.array_split(np.arange(len(EVERYONE)), clients)
    return [ClickLearner(SPEC, EVERYONE.subset(part)) for part in parts]


def _federate(
    folder: Path, plan: PrivacyPlan, learners: list[Learner] | None = None, budgets: list[Budget] | None = None, **how
) -> Federated:
    if not folder.exists():
        new_server(folder)
    course = replace(COURSE, **how)
    return federate_head(head(), learners or _learners(), plan=plan, course=course, folder=folder, budgets=budgets)


def _vector(learned: Arrays) -> np.ndarray:
    return flatten(learned, head().schema)


def test_federated_without_noise_is_what_one_place_with_everybody_learns(tmp_path: Path) -> None:
    """Sums of gradients do not care who holds whom; the public weights make the mean over clients theirs."""
    plan = open_plan(rounds=20, clip_norm=1.0, expected_people=80)
    apart = _federate(tmp_path / "apart", plan)
    together = _federate(tmp_path / "together", replace(plan, expected_people=240), _learners(1))
    assert _vector(apart.learned) == pytest.approx(_vector(together.learned), abs=1e-4)
    assert np.abs(_vector(apart.learned) - _vector(head().start)).max() > 0.5


def test_it_learns_to_tell_clicks_apart(tmp_path: Path) -> None:
    learned = _federate(tmp_path / "run", open_plan(rounds=20, clip_norm=1.0, expected_people=80)).learned
    shown = columns(2_000, seed=50)
    clicked = clicks(shown, seed=51)
    assert area_under_curve(ClickHead(SPEC, learned).probabilities(SPEC.read(shown)), clicked) > 0.8
    assert area_under_curve(ClickHead(SPEC, head().start).probabilities(SPEC.read(shown)), clicked) == 0.5


def test_every_round_is_charged_to_every_ledger_and_said_as_it_is_spent(tmp_path: Path) -> None:
    new_server(tmp_path / "run")
    plan = _PRIVATE
    budgets = new_budgets(head(), plan, tmp_path / "run", clients=CLIENTS)
    done = _federate(tmp_path / "run", plan, budgets=budgets)
    assert [len(done.records), done.records[-1].admitted] == [ROUNDS, CLIENTS]
    for budget in budgets:
        assert budget.ledger.spent() == pytest.approx(plan.epsilon_after(ROUNDS))
        rounds = [entry.round_id for entry in budget.ledger.entries() if entry.round_id.startswith("run-1/")]
        assert sorted(set(rounds)) == [f"run-1/{number}" for number in range(1, ROUNDS + 1)]
    assert [record.epsilon_spent for record in done.records] == [plan.epsilon_after(n) for n in range(1, ROUNDS + 1)]


def test_private_runs_of_the_same_people_differ(tmp_path: Path) -> None:
    one, other = (_vector(_federate(tmp_path / name, _PRIVATE).learned) for name in ("one", "other"))
    assert (one != other).mean() > 0.99
    again, same = (_vector(_federate(tmp_path / name, _OPEN).learned) for name in ("again", "same"))
    assert np.array_equal(again, same)


def _roomy(plan: PrivacyPlan, server_key: str, folder: Path, *, max_epsilon: float) -> list[Budget]:
    """Ledgers that paid for an adapter of the same people already, and a policy with some room beyond that."""
    adapter_base = "d" * 64
    strict = Policy.for_plan(plan, base=adapter_base, code=code_digest(), server_key=server_key)
    policy = strict.model_copy(
        update={
            "allowed_bases": (adapter_base, SPEC.digest()),
            "max_epsilon": max_epsilon,
            "max_steps_total": 2 * ROUNDS,
            "max_steps_per_day": 2 * ROUNDS,
            "max_rounds_total": 2 * ROUNDS,
            "max_rounds_per_day": 2 * ROUNDS,
        }
    )
    budgets = []
    for client in range(CLIENTS):
        files = LedgerFiles.beside(folder / f"shop-{client}.sqlite")
        ledger = Ledger.create(files, dataset=f"shop {client}", policy=policy, durable=False)
        for number in range(1, ROUNDS + 1):
            ledger.charge(f"adapter/{number}", plan.training(1), plan=plan)
            ledger.release(f"adapter/{number}")
        budgets.append(Budget(policy, ledger))
    return budgets


def test_a_head_composes_with_what_the_same_people_have_given_already(tmp_path: Path) -> None:
    plan = _PRIVATE
    budgets = _roomy(plan, new_server(tmp_path / "run"), tmp_path, max_epsilon=20.0)
    before = budgets[0].ledger.spent()
    _federate(tmp_path / "run", plan, budgets=budgets)
    together = composed_epsilon((plan.training(ROUNDS), plan.training(ROUNDS)), plan.delta)
    assert budgets[0].ledger.spent() == pytest.approx(together)
    assert before < together < 2 * before


def test_a_ledger_without_room_for_a_head_refuses_it(tmp_path: Path) -> None:
    """A round fits in, then no more: the budget is the people's, whatever asks for it."""
    plan = _PRIVATE
    budgets = _roomy(plan, new_server(tmp_path / "run"), tmp_path, max_epsilon=9.3)
    with pytest.raises(RunError, match=r"round 2: 3 of 3 clients did not take part: \{'E_BUDGET': 3\}"):
        _federate(tmp_path / "run", plan, budgets=budgets)
    assert all(budget.ledger.spent() <= 9.3 for budget in budgets)


def test_a_policy_that_lists_only_the_rankers_base_refuses_a_head(tmp_path: Path) -> None:
    plan, key = _PRIVATE, new_server(tmp_path / "run")
    policy = Policy.for_plan(plan, base="d" * 64, code=code_digest(), server_key=key)
    budgets = [replace(budget, policy=policy) for budget in new_budgets(head(), plan, tmp_path / "run", clients=3)]
    with pytest.raises(RunError, match=r"round 1: 3 of 3 clients did not take part: \{'E_PLAN': 3\}"):
        _federate(tmp_path / "run", plan, budgets=budgets)
    assert all(budget.ledger.spent() == 0 for budget in budgets)


def test_another_server_is_not_followed(tmp_path: Path) -> None:
    plan = _PRIVATE
    new_server(tmp_path / "theirs")
    budgets = new_budgets(head(), plan, tmp_path / "theirs", clients=CLIENTS)
    with pytest.raises(RunError, match=r"round 1: 3 of 3 clients did not take part: \{'E_PLAN': 3\}"):
        _federate(tmp_path / "ours", plan, budgets=budgets)


def test_a_run_is_trained_once_on_a_ledger(tmp_path: Path) -> None:
    """Asked again under the same name and without the kept replies, clients do not compute a second answer."""
    new_server(tmp_path / "run")
    budgets = new_budgets(head(), _PRIVATE, tmp_path / "run", clients=CLIENTS)
    _federate(tmp_path / "run", _PRIVATE, budgets=budgets)
    for reply in (tmp_path / "run").glob("reply-*.safetensors"):
        reply.unlink()
    with pytest.raises(RunError, match="'E_REPLAY': 3"):
        _federate(tmp_path / "run", _PRIVATE, budgets=budgets)


def test_under_shared_noise_a_round_without_everybody_is_none(tmp_path: Path) -> None:
    plan = replace(_PRIVATE, trust="distributed", noise_sharers=CLIENTS)
    assert _federate(tmp_path / "run", plan).records[-1].admitted == CLIENTS
    new_server(tmp_path / "other")
    budgets = new_budgets(head(), plan, tmp_path / "other", clients=CLIENTS)
    budgets[1] = replace(budgets[1], policy=budgets[1].policy.model_copy(update={"min_people": 1_000}))
    with pytest.raises(RunError, match=r"round 1: 1 of 3 clients did not take part: \{'E_PLAN': 1\}"):
        _federate(tmp_path / "other", plan, budgets=budgets)


def test_the_judge_picks_the_round_that_is_published(tmp_path: Path) -> None:
    new_server(tmp_path / "run")
    heads: list[Arrays] = []

    def judge(learned: Arrays) -> dict[str, float]:
        heads.append(learned)
        return {"panel_loss": abs(len(heads) - 3.0)}

    done = federate_head(head(), _learners(), plan=_OPEN, course=COURSE, folder=tmp_path / "run", judge=judge)
    assert np.array_equal(_vector(done.learned), _vector(heads[2]))
    assert len(heads) == 1 + ROUNDS


def test_budgets_and_clients_go_together(tmp_path: Path) -> None:
    new_server(tmp_path / "run")
    budgets = new_budgets(head(), _OPEN, tmp_path / "run", clients=2)
    with pytest.raises(ConfigError, match="2 budgets for 3 clients: expected one each"):
        _federate(tmp_path / "run", _OPEN, budgets=budgets)


def test_no_run_folder_takes_a_head(tmp_path: Path) -> None:
    """On separate machines nobody can agree on one yet: refused, and never mistaken for an adapter."""
    agreed: Agreement = replace(agreement(), adapter=HeadSpec("clicks"))
    why = r"adapter: a head for clicks, which has no ranker; it is for simulations alone"
    with pytest.raises(RunError, match=why):
        write_agreement(agreed, tmp_path)
    with pytest.raises(RunError):
        agreed_ranker(agreed, tmp_path)
    assert agreed.digest() != replace(agreed, adapter=HeadSpec("query")).digest()
    assert isinstance(EVERYONE, Impressions)
