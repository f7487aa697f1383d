import math
import stat
import time
from pathlib import Path

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps, composed_epsilon
from fedrec.privacy.ledger import Charge, Kind, Ledger, LedgerFiles
from fedrec.privacy.plan import PrivacyPlan
from tests.fedrec.privacy.ledgers import (
    DATA,
    generous,
    new_ledger,
    policy_for,
    reopened,
)


@pytest.fixture
def plan(make_plan) -> PrivacyPlan:
    return make_plan()


@pytest.fixture
def ledger(tmp_path: Path, plan: PrivacyPlan) -> Ledger:
    return new_ledger(tmp_path, generous(plan))


def test_a_charge_is_on_record_before_anything_is_trained(ledger, plan):
    policy = generous(plan)
    assert ledger.charge("run/1", plan.training(2), plan=plan) is Charge.CHARGED
    opened, entry = reopened(ledger, policy).entries()
    assert (opened.sequence, opened.state, opened.spending) == (1, "opened", Steps(0, 0, 0))
    assert (entry.sequence, entry.round_id, entry.run, entry.state) == (2, "run/1", "run", "reserved")
    assert (entry.dataset, entry.unit, entry.kind) == (DATA, "person at a client", "training")
    assert (entry.plan, entry.policy) == (plan.digest(), policy.digest())
    assert entry.spending == plan.training(2)
    assert (entry.clip_norm, entry.delta, entry.accountant) == (1.0, 1e-5, plan.accountant)
    assert (entry.previous, entry.mac) == (opened.mac, ledger.head())


def test_the_same_round_is_charged_once(ledger, plan):
    assert ledger.charge("run/1", plan.training(1), plan=plan) == "charged"
    spent = ledger.spent()
    assert ledger.charge("run/1", plan.training(1), plan=plan) == "already charged"
    ledger.release("run/1")
    assert ledger.charge("run/1", plan.training(1), plan=plan) is Charge.ALREADY_CHARGED
    assert ledger.spent() == spent == plan.epsilon_after(1)


def test_the_same_round_with_other_steps_or_plan_is_refused(ledger, plan, make_plan):
    ledger.charge("run/1", plan.training(1), plan=plan)
    message = "round 'run/1': charged with other steps or another plan; expected the same"
    with pytest.raises(PrivacyError, match=message):
        ledger.charge("run/1", plan.training(2), plan=plan)
    other = make_plan(clip_norm=0.5)
    with pytest.raises(PrivacyError, match=message):
        ledger.charge("run/1", other.training(1), plan=other)
    assert len(ledger.entries()) == 2


def test_the_whole_plan_fits_and_not_a_step_more(ledger, plan):
    for round_index in range(plan.rounds):
        ledger.charge(f"run/{round_index}", plan.training(1), plan=plan)
    assert ledger.spent() == plan.epsilon_after(plan.steps) <= plan.epsilon
    with pytest.raises(PrivacyError, match="training of this run to 31 steps, expected <= 30, which the plan says"):
        ledger.charge("run/30", plan.training(1), plan=plan)
    with pytest.raises(
        PrivacyError,
        match=r"policy max_epsilon: the charge would bring epsilon to 8\.\d+, allowed 8.0 at delta 1e-05, "
        r"person at a client, add or remove one person, dp-accounting .* PLD",
    ):
        ledger.charge("other/1", plan.training(1), plan=plan)
    assert len(ledger.entries()) == 1 + plan.rounds


def test_a_new_run_goes_on_with_the_old_budget(ledger, plan, make_plan):
    ledger.charge("first/0", plan.training(20), plan=plan)
    again = reopened(ledger, generous(plan))
    again.charge("second/0", plan.training(10), plan=plan)
    with pytest.raises(PrivacyError, match="would bring epsilon to"):
        again.charge("second/1", plan.training(1), plan=plan)
    cheaper = make_plan(epsilon=1.0)
    with pytest.raises(PrivacyError, match=r"allowed 1.0"):
        reopened(ledger, generous(cheaper)).charge("third/0", cheaper.training(1), plan=cheaper)


def test_different_mechanisms_compose_by_events(ledger, plan, make_plan):
    ledger.charge("first/0", plan.training(10), plan=plan)
    other = make_plan(epsilon=3.0, sampling_rate=0.2, clipping="auto-s")
    ledger.charge("second/0", other.training(5), plan=other)
    assert set(ledger.spendings()) == {plan.training(10), other.training(5)}
    expected = composed_epsilon((plan.training(10), other.training(5)), 1e-5)
    assert ledger.spent() == expected
    assert max(plan.epsilon_after(10), other.epsilon_after(5)) < expected
    assert expected < plan.epsilon_after(10) + other.epsilon_after(5)


def test_metric_releases_are_charged_beside_training_and_no_more_than_the_plan_has(tmp_path, make_plan):
    plan = make_plan(metric_releases=2, metric_noise_multiplier=20.0)
    ledger = new_ledger(tmp_path, generous(plan))
    ledger.charge("run/1", plan.training(30), plan=plan)
    for index in range(2):
        ledger.charge(f"run/metrics/{index}", plan.metrics_release(), plan=plan, kind=Kind.METRICS)
    assert ledger.spent() == composed_epsilon(plan.spendings(), 1e-5) <= plan.epsilon
    assert ledger.spent() > composed_epsilon(plan.spendings()[:1], 1e-5)
    with pytest.raises(PrivacyError, match="metrics of this run to 3 steps, expected <= 2, which the plan says"):
        ledger.charge("run/metrics/2", plan.metrics_release(), plan=plan, kind=Kind.METRICS)
    with pytest.raises(PrivacyError, match="charged with other steps or another plan"):
        ledger.charge("run/1", plan.metrics_release(), plan=plan, kind=Kind.METRICS)


def test_a_run_without_noise_is_recorded_and_spends_everything(tmp_path, make_open_plan, plan):
    open_plan = make_open_plan()
    ledger = new_ledger(tmp_path, None)
    assert ledger.spent() == 0.0
    ledger.charge("open/0", open_plan.training(1), plan=open_plan)
    assert ledger.spent() == math.inf
    with pytest.raises(PrivacyError, match=r"a private plan without a policy: expected policy.toml beside the ledger"):
        ledger.charge("run/0", plan.training(1), plan=plan)
    private = reopened(ledger, generous(plan))
    assert private.spent() == math.inf
    with pytest.raises(PrivacyError, match="would bring epsilon to inf"):
        private.charge("run/0", plan.training(1), plan=plan)
    with pytest.raises(PrivacyError, match=r"policy max_epsilon: a plan without privacy, allowed <= 8.0"):
        private.charge("open/1", open_plan.training(1), plan=open_plan)


@pytest.mark.parametrize("steps", [0, -3, 1.0, True, 31, math.nan, None, "1"])
def test_steps_that_are_no_steps_are_refused(ledger, plan, steps):
    with pytest.raises(PrivacyError, match=r"round 'r/1', steps=.*: expected 1 to 30 for training"):
        ledger.charge("r/1", plan.training(1)._replace(steps=steps), plan=plan)
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize("round_id", ["", "run", "/1", "run/", "run/\n1", "r/" + "1" * 200, 7, None])
def test_a_round_without_a_proper_name_is_refused(ledger, plan, round_id):
    with pytest.raises(PrivacyError, match=r"expected RUN/ROUND, at most 200 printable characters"):
        ledger.charge(round_id, plan.training(1), plan=plan)
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize("kind", ["other", "training", None])
def test_a_charge_for_no_known_purpose_is_refused(ledger, plan, kind):
    with pytest.raises(PrivacyError, match=r"kind=.*: expected one of \['training', 'metrics', 'statistics'\]"):
        ledger.charge("r/1", plan.training(1), plan=plan, kind=kind)


@pytest.mark.parametrize("spending", [None, 5, (1.0, 0.25, 1), "steps", []])
def test_a_charge_of_no_mechanism_is_refused(ledger, plan, spending):
    with pytest.raises(PrivacyError, match=r"round 'r/1', steps=None: expected 1 to 30 for training"):
        ledger.charge("r/1", spending, plan=plan)


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_multiplier": 99.0},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"sampling_rate": 0.01},
        {"batch_cap": 5, "max_people": 90},
    ],
)
def test_a_charge_that_the_plan_does_not_say_is_refused(ledger, plan, wrong):
    with pytest.raises(PrivacyError, match=r"round 'r/1': Steps\(.*expected Steps\(.*, which the plan says"):
        ledger.charge("r/1", plan.training(1)._replace(**wrong), plan=plan)
    assert len(ledger.entries()) == 1


def test_a_charge_is_checked_against_the_policy_each_time(ledger, plan):
    ledger.charge("run/1", plan.training(1), plan=plan)
    strict = reopened(ledger, generous(plan, min_noise_multiplier=plan.noise_multiplier + 0.1))
    for round_id in ("run/1", "run/2"):
        with pytest.raises(PrivacyError, match="policy min_noise_multiplier"):
            strict.charge(round_id, plan.training(1), plan=plan)


def test_a_release_is_noted_once_and_costs_nothing(ledger, plan):
    ledger.charge("run/1", plan.training(1), plan=plan)
    spent = ledger.spent()
    assert not ledger.is_released("run/1")
    head = ledger.release("run/1")
    assert head == ledger.head() == ledger.entries()[-1].mac
    ledger.charge("run/2", plan.training(1), plan=plan)
    assert ledger.release("run/1") == head
    assert ledger.is_released("run/1")
    assert not ledger.is_released("run/2")
    assert [entry.state for entry in ledger.entries()] == ["opened", "reserved", "released", "reserved"]
    assert ledger.spent() == plan.epsilon_after(2) > spent


def test_a_release_without_a_charge_is_refused(ledger):
    with pytest.raises(PrivacyError, match="round 'run/9': never charged; expected charge before release"):
        ledger.release("run/9")


def test_settling_gives_back_what_was_not_used_and_ends_the_round(ledger, plan):
    ledger.charge("run/1", plan.training(10), plan=plan)
    ledger.settle(2, steps=3, reason="the machine was switched off after 3 steps")
    assert ledger.spendings() == (plan.training(3),)
    assert ledger.spent() == plan.epsilon_after(3)
    assert ledger.entries()[-1].reason == "the machine was switched off after 3 steps"
    with pytest.raises(PrivacyError, match="round 'run/1': settled; nothing more can be computed or sent"):
        ledger.charge("run/1", plan.training(10), plan=plan)
    with pytest.raises(PrivacyError, match="round 'run/1': settled; its result must not be sent"):
        ledger.release("run/1")
    assert ledger.charge("run/2", plan.training(27), plan=plan) is Charge.CHARGED


def test_a_round_settled_to_nothing_costs_nothing(ledger, plan):
    ledger.charge("run/1", plan.training(10), plan=plan)
    ledger.settle(2, steps=0, reason="never begun")
    assert (ledger.spendings(), ledger.spent()) == ((), 0.0)


def test_only_an_unreleased_charge_can_be_settled_and_only_once(ledger, plan):
    ledger.charge("run/1", plan.training(2), plan=plan)
    ledger.charge("run/2", plan.training(2), plan=plan)
    ledger.release("run/1")
    ledger.settle(3, steps=1, reason="a crash")
    expected = "expected one that is reserved and was never released"
    for sequence, what in ((1, "not a charge"), (2, "released"), (3, "settled"), (4, "not a charge"), (99, "not a")):
        with pytest.raises(PrivacyError, match=f"entry {sequence}: {what}.*; {expected}"):
            ledger.settle(sequence, steps=0, reason="again")


@pytest.mark.parametrize("steps", [2, 3, -1, True, 1.0, None])
def test_settling_only_ever_goes_down(ledger, plan, steps):
    ledger.charge("run/1", plan.training(2), plan=plan)
    with pytest.raises(PrivacyError, match=r"steps=.*: expected 0 to 1, fewer than were charged"):
        ledger.settle(2, steps=steps, reason="a crash")


@pytest.mark.parametrize("reason", ["", "a\nb", "x" * 201, None])
def test_settling_needs_a_reason(ledger, plan, reason):
    ledger.charge("run/1", plan.training(2), plan=plan)
    with pytest.raises(PrivacyError, match=r"reason=.*: expected 1 to 200 printable characters"):
        ledger.settle(2, steps=0, reason=reason)


def test_what_was_settled_still_counts_for_the_caps_of_the_day(tmp_path, plan):
    ledger = new_ledger(tmp_path, generous(plan, max_rounds_per_day=1, max_steps_per_day=5))
    ledger.charge("run/1", plan.training(5), plan=plan)
    ledger.settle(2, steps=0, reason="a crash")
    with pytest.raises(PrivacyError, match="max_rounds_per_day"):
        ledger.charge("run/2", plan.training(1), plan=plan)


def test_only_the_owner_may_read_ledger_key_and_witness(ledger):
    assert {stat.S_IMODE(path.stat().st_mode) for path in ledger.files} == {0o600}


def test_key_and_witness_lie_beside_the_ledger_unless_said_otherwise():
    files = LedgerFiles.beside(Path("a/b.sqlite"))
    assert files == (Path("a/b.sqlite"), Path("a/b.key"), Path("a/b.witness.json"))


def test_the_strictest_policy_lets_exactly_its_plan_run(tmp_path, plan):
    ledger = new_ledger(tmp_path, policy_for(plan))
    for index in range(plan.rounds):
        ledger.charge(f"run/{index}", plan.training(1), plan=plan)
    with pytest.raises(PrivacyError):
        ledger.charge("next/1", plan.training(1), plan=plan)


@pytest.mark.parametrize("durable", [True, False])
def test_a_charge_is_cheap(tmp_path, plan, durable):
    ledger = new_ledger(tmp_path, policy_for(plan), durable=durable)
    times = []
    for index in range(30):
        start = time.process_time()
        ledger.charge(f"run/{index}", plan.training(1), plan=plan)
        times.append(time.process_time() - start)
    assert sorted(times)[15] < 0.015  # 0.001 s measured
