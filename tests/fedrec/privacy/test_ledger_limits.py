from pathlib import Path

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import composed_epsilon
from fedrec.privacy.ledger import Charge, Ledger
from fedrec.privacy.plan import PrivacyPlan
from tests.fedrec.privacy.ledgers import DAY, Clock, charged_until_refused, generous, new_ledger, reopened


@pytest.fixture
def plan(make_plan) -> PrivacyPlan:
    return make_plan()


@pytest.fixture
def ledger(tmp_path: Path, plan: PrivacyPlan) -> Ledger:
    return new_ledger(tmp_path, generous(plan))


def test_loosening_the_policy_gives_no_budget_back(ledger, plan):
    ledger.charge("first/0", plan.training(30), plan=plan)
    spent = ledger.spent()
    looser = reopened(ledger, generous(plan, max_epsilon=9.0))
    assert looser.spent() == spent
    granted, refusal = charged_until_refused(looser, plan, run="second")
    assert 0 < granted < 30
    assert "allowed 9.0" in refusal
    assert plan.epsilon < looser.spent() <= 9.0


def test_two_plans_that_each_keep_the_policy_do_not_when_together_they_pass_it(ledger, plan, make_plan):
    ledger.charge("first/0", plan.training(28), plan=plan)
    other = make_plan(epsilon=6.0, sampling_rate=0.2)
    granted, refusal = charged_until_refused(ledger, other, run="second")
    assert 0 < granted < other.steps
    assert "would bring epsilon to" in refusal
    both = (plan.training(28), other.training(granted))
    assert ledger.spent() == composed_epsilon(both, 1e-5) <= 8.0
    assert composed_epsilon((both[0], other.training(granted + 1)), 1e-5) > 8.0


@pytest.mark.parametrize(
    ("cap", "value", "message"),
    [
        ("max_rounds_total", 2, "would bring it to 3, allowed 2"),
        ("max_steps_total", 5, "would bring it to 6, allowed 5"),
        ("max_rounds_per_day", 2, "would bring it to 3, allowed 2"),
        ("max_steps_per_day", 5, "would bring it to 6, allowed 5"),
    ],
)
def test_caps_count_training_charges_of_all_runs(tmp_path, make_plan, cap, value, message):
    plan, clock = make_plan(rounds=2, local_steps=2), Clock()
    ledger = new_ledger(tmp_path, generous(plan, **{"max_epsilon": 50.0, cap: value}), clock=clock)
    for run in range(2):
        ledger.charge(f"{run}/1", plan.training(2), plan=plan)
    with pytest.raises(PrivacyError, match=f"policy {cap}: the charge {message}"):
        ledger.charge("2/1", plan.training(2), plan=plan)
    clock.now += DAY
    if "day" in cap:
        assert ledger.charge("2/1", plan.training(2), plan=plan) is Charge.CHARGED
    else:
        with pytest.raises(PrivacyError, match=message):
            ledger.charge("2/1", plan.training(2), plan=plan)


def test_a_day_is_the_last_24_hours_and_not_a_date(tmp_path, plan):
    clock = Clock()
    ledger = new_ledger(tmp_path, generous(plan, max_rounds_per_day=1), clock=clock)
    ledger.charge("run/1", plan.training(1), plan=plan)
    clock.now += DAY - 1
    with pytest.raises(PrivacyError, match="max_rounds_per_day"):
        ledger.charge("run/2", plan.training(1), plan=plan)
    clock.now += 1
    ledger.charge("run/2", plan.training(1), plan=plan)


def test_a_clock_set_back_a_day_keeps_the_caps_and_the_order_of_times(tmp_path, plan):
    clock = Clock()
    ledger = new_ledger(tmp_path, generous(plan, max_rounds_per_day=1), clock=clock)
    ledger.charge("run/1", plan.training(1), plan=plan)
    clock.now -= DAY + 1
    with pytest.raises(PrivacyError, match="max_rounds_per_day: the charge would bring it to 2, allowed 1"):
        ledger.charge("run/2", plan.training(1), plan=plan)
    ledger.release("run/1")
    times = [entry.at for entry in ledger.entries()]
    assert times == sorted(times) == [1_800_000_000] * 3


def test_adaptive_parameters_meet_the_filter_too_once_a_second_run_begins(tmp_path, plan):
    rounds = {}
    for parameters in ("fixed", "adaptive"):
        (tmp_path / parameters).mkdir()
        delta = plan.delta if parameters == "fixed" else 2 * plan.delta
        ledger = new_ledger(tmp_path / parameters, generous(plan, parameters=parameters, max_delta=delta))
        ledger.charge("first/0", plan.training(20), plan=plan)
        rounds[parameters], refusal = charged_until_refused(ledger, plan, run="second")
        assert "would bring epsilon to" in refusal
        assert ("Renyi filter of order" in refusal) == (parameters == "adaptive")
    assert 0 <= rounds["adaptive"] < rounds["fixed"] == 10


def test_one_adaptive_run_alone_has_its_whole_plan(tmp_path, plan):
    ledger = new_ledger(tmp_path, generous(plan, parameters="adaptive", max_delta=2 * plan.delta))
    assert ledger.charge("only/1", plan.training(30), plan=plan) is Charge.CHARGED


def test_adaptive_parameters_leave_a_plan_half_of_delta(tmp_path, plan):
    """The other half is for what the filter covers; which of the two happens may depend on the outputs."""
    ledger = new_ledger(tmp_path, generous(plan, parameters="adaptive"))
    with pytest.raises(PrivacyError, match="policy max_delta: 1e-05, allowed <= 5e-06, half of max_delta because"):
        ledger.charge("only/1", plan.training(1), plan=plan)
