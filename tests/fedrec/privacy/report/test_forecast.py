"""The report says how many more rounds fit; the ledger alone decides. Here the ledger is asked."""

from dataclasses import replace

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.ledger import Kind, Ledger
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.report.forecast import NOT_ALLOWED, forecast
from fedrec.privacy.report.tally import ledger_facts
from tests.fedrec.privacy.ledgers import generous, new_ledger

ADAPTIVE = {"parameters": "adaptive", "max_delta": 2e-5}  # half of it is the plan's
pytestmark = pytest.mark.usefixtures("coarse_accounting")


@pytest.fixture
def plan() -> PrivacyPlan:
    """Twenty rounds of two steps: epsilon 3.96 at its end."""
    return PrivacyPlan(
        epsilon=4.0,
        delta=1e-5,
        noise_multiplier=2.0,
        sampling_rate=0.25,
        steps=40,
        local_steps=2,
        clip_norm=1.0,
        clipping="flat",
        expected_people=80,
        metric_releases=1,
        metric_noise_multiplier=100.0,
    )


def charge(ledger: Ledger, plan: PrivacyPlan, rounds: range, *, run: str = "run", steps: int = 2) -> None:
    for at in rounds:
        ledger.charge(f"{run}/{at}", plan.training(steps), plan=plan)


def settle(ledger: Ledger, round_id: str, steps: int) -> None:
    entry = next(entry for entry in ledger.entries() if entry.round_id == round_id)
    ledger.settle(entry.sequence, steps=steps, reason="power cut")


def three_rounds(ledger: Ledger, plan: PrivacyPlan) -> None:
    charge(ledger, plan, range(1, 4))


def some_settled(ledger: Ledger, plan: PrivacyPlan) -> None:
    charge(ledger, plan, range(1, 7))
    settle(ledger, "run/2", 0)
    settle(ledger, "run/5", 1)


def all_settled(ledger: Ledger, plan: PrivacyPlan) -> None:
    charge(ledger, plan, range(1, 3))
    settle(ledger, "run/1", 0)
    settle(ledger, "run/2", 0)


def two_runs_of_one_mechanism(ledger: Ledger, plan: PrivacyPlan) -> None:
    charge(ledger, plan, range(1, 9), run="older")
    charge(ledger, plan, range(1, 3))


def two_runs_some_settled(ledger: Ledger, plan: PrivacyPlan) -> None:
    two_runs_of_one_mechanism(ledger, plan)
    settle(ledger, "older/3", 1)
    settle(ledger, "run/1", 0)


def older_run_settled_to_nothing(ledger: Ledger, plan: PrivacyPlan) -> None:
    charge(ledger, plan, range(1, 2), run="older")
    settle(ledger, "older/1", 0)
    charge(ledger, plan, range(1, 2))


def older_run_of_metrics_alone(ledger: Ledger, plan: PrivacyPlan) -> None:
    ledger.charge("older/1/metrics", plan.metrics_release(), plan=plan, kind=Kind.METRICS)
    charge(ledger, plan, range(1, 4))


def older_run_of_another_plan(ledger: Ledger, plan: PrivacyPlan) -> None:
    charge(ledger, replace(plan, noise_multiplier=3.0), range(1, 5), run="older")
    charge(ledger, plan, range(1, 2))


def another_run_only(ledger: Ledger, plan: PrivacyPlan) -> None:
    charge(ledger, plan, range(1, 9), run="older")


def longer_rounds(ledger: Ledger, plan: PrivacyPlan) -> None:
    charge(ledger, plan, range(1, 4), steps=4)


def shorter_rounds(ledger: Ledger, plan: PrivacyPlan) -> None:
    charge(ledger, plan, range(1, 4), steps=1)


def granted(ledger: Ledger, plan: PrivacyPlan) -> int:
    """Rounds of the run that the ledger grants until it refuses one, or none is left that was never charged."""
    known = {entry.round_id for entry in ledger.entries()}
    fresh = [at for at in range(1, plan.rounds + 1) if f"run/{at}" not in known]
    for count, at in enumerate(fresh):
        try:
            charge(ledger, plan, range(at, at + 1))
        except PrivacyError:
            return count
    return len(fresh)


LIKE_THE_PLAN = (
    three_rounds,
    some_settled,
    all_settled,
    two_runs_of_one_mechanism,
    two_runs_some_settled,
    older_run_settled_to_nothing,
    older_run_of_metrics_alone,
    older_run_of_another_plan,
)
HISTORIES = (*LIKE_THE_PLAN, another_run_only, longer_rounds, shorter_rounds)
LIMITS = ({}, {"max_epsilon": 8.0}, {"max_steps_total": 41}, {"max_rounds_total": 20})


@pytest.mark.parametrize("parameters", [{}, ADAPTIVE], ids=["fixed", "adaptive"])
@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: next(iter(limits), "max_epsilon 4"))
@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.__name__)
def test_the_ledger_grants_exactly_the_rounds_left_and_not_one_more(tmp_path, plan, history, limits, parameters):
    policy = generous(plan, **(limits | parameters))
    ledger = new_ledger(tmp_path, policy)
    history(ledger, plan)
    groups = ledger_facts(ledger.entries(), name="x").groups
    left = forecast(groups, policy, plan, run="run").rounds_left
    if history in LIKE_THE_PLAN:
        of_the_run = plan.rounds - sum(g.charges for g in groups if g.run == "run" and g.kind == "training")
        assert min(forecast(groups, policy, None).rounds_left, of_the_run) == left
    assert granted(ledger, plan) == left


def test_two_runs_of_one_mechanism_are_held_to_the_filter(tmp_path, plan):
    """What made it worth a test: merged they look like one run, and the distributions alone would allow more."""
    lefts = []
    for parameters in ({}, ADAPTIVE):
        folder = tmp_path / str(len(lefts))
        folder.mkdir()
        policy = generous(plan, **parameters)
        ledger = new_ledger(folder, policy)
        two_runs_of_one_mechanism(ledger, plan)
        lefts.append(forecast(ledger_facts(ledger.entries(), name="x").groups, policy, plan, run="run"))
    fixed, adaptive = lefts
    assert 0 < adaptive.rounds_left < fixed.rounds_left
    assert adaptive.epsilon_left < fixed.epsilon_left - 0.3
    assert adaptive.stops_because == "the policy's max_epsilon"


def test_a_plan_beyond_the_policy_has_no_round_left(tmp_path, plan):
    ledger = new_ledger(tmp_path, generous(plan))
    three_rounds(ledger, plan)
    groups = ledger_facts(ledger.entries(), name="x").groups
    left = forecast(groups, generous(plan, max_rounds_total=19), plan)
    assert (left.rounds_left, left.stops_because) == (0, NOT_ALLOWED)


def test_a_charge_costs_what_it_was_charged_for_after_it_was_settled(tmp_path, plan):
    policy = generous(plan, max_epsilon=8.0, max_steps_total=46)
    ledger = new_ledger(tmp_path, policy)
    some_settled(ledger, plan)
    left = forecast(ledger_facts(ledger.entries(), name="x").groups, policy, None)
    assert (left.rounds_left, left.stops_because) == ((46 - 12) // 2, "the policy's max_steps_total")
