"""One release of counts is part of the promise: in its noise, its spendings, its statement, its ledger."""

import dataclasses
import json
import math

import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps, composed_epsilon
from fedrec.privacy.ledger import Charge, Kind
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import SecureRandom, SeededRandom
from fedrec.privacy.statistics import release_statistics
from tests.fedrec.privacy.ledgers import new_ledger, policy_for
from tests.fedrec.privacy.noises import is_noise_of

COUNTS = {"statistics_noise_multiplier": 2.0}
METRICS = {"metric_releases": 5, "metric_noise_multiplier": 20.0}

pytestmark = pytest.mark.usefixtures("coarse_accounting")


def test_the_promise_covers_the_counts_and_hardly_more(make_plan):
    plan = make_plan(rounds=4, **COUNTS)
    assert composed_epsilon(plan.spendings(), plan.delta) <= 8.0
    assert plan.noise_multiplier > make_plan(rounds=4).noise_multiplier
    with pytest.raises(PrivacyError, match="gives epsilon"):
        dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier - 2e-4)
    with pytest.raises(PrivacyError, match="gives epsilon"):
        dataclasses.replace(plan, statistics_noise_multiplier=1.9)
    assert PrivacyPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert plan.digest() != make_plan(rounds=4).digest()


def test_counts_that_cost_everything_leave_nothing_to_train_with(make_plan):
    with pytest.raises(PrivacyError, match="the other releases spend it all; raise their noise or epsilon"):
        make_plan(rounds=4, statistics_noise_multiplier=0.3)


def test_spendings_are_training_metrics_and_counts(make_plan):
    plan = make_plan(rounds=4, **COUNTS, **METRICS)
    assert plan.statistics_release() == Steps(2.0, 1.0, 1)
    assert plan.spendings() == (plan.training(4), Steps(20.0, 1.0, 5), Steps(2.0, 1.0, 1))


def test_epsilon_counts_the_counts_once_they_were_released(make_plan):
    plan = make_plan(rounds=4, **COUNTS)
    assert plan.epsilon_after(0, statistics=True) == composed_epsilon((Steps(2.0, 1.0, 1),), plan.delta)
    assert plan.epsilon_after(4) < plan.epsilon_after(4, statistics=True) == plan.epsilon_for_person_at(1) <= 8.0


def test_the_accounting_library_comes_to_the_same_epsilon(make_plan):
    plan = make_plan(rounds=4, **COUNTS)
    accountant = PLDAccountant()
    accountant.compose(plan.event())
    assert accountant.get_epsilon(plan.delta) == pytest.approx(plan.epsilon_for_person_at(1), abs=1e-3)


def test_the_statement_mentions_the_counts(make_plan):
    assert (
        "over all 4 training steps and one release of noised counts, where" in make_plan(rounds=4, **COUNTS).statement()
    )
    assert "counts" not in make_plan(rounds=4).statement()


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf, "2", True])
def test_a_noise_that_is_none_is_refused(make_plan, noise):
    with pytest.raises(PrivacyError, match=r"statistics_noise_multiplier=.*: expected a finite number"):
        make_plan(rounds=4, statistics_noise_multiplier=noise)


def test_a_plan_without_a_release_of_counts_has_none(make_plan, make_open_plan):
    for plan in (make_plan(rounds=4), make_open_plan()):
        for attempt in (
            plan.statistics_release,
            lambda plan=plan: release_statistics(plan, SecureRandom(), people=[], size=3),
        ):
            with pytest.raises(
                PrivacyError, match="statistics_noise_multiplier=None: this plan releases none; make one"
            ):
                attempt()


def test_without_privacy_counts_have_no_noise(make_open_plan):
    plan = make_open_plan(releases_statistics=True)
    assert plan.statistics_release() == Steps(0.0, 1.0, 1)
    row = (np.array([1]), np.array([0.5]))
    assert release_statistics(plan, SeededRandom(0), people=[row] * 4, size=3).tolist() == [0, 2 / 80, 0]
    with pytest.raises(PrivacyError, match="a plan without privacy: expected statistics_noise_multiplier=0 or none"):
        dataclasses.replace(plan, statistics_noise_multiplier=1.0)


@pytest.mark.parametrize(("trust", "sharers", "share"), [("local", 1, 1.0), ("distributed", 16, 0.25)])
def test_released_noise_has_exactly_the_clients_share(make_plan, trust, sharers, share):
    """80 people expected, sigma 2: each number has noise of deviation 2 / sqrt(m) / 80, drawn once."""
    plan = make_plan(rounds=4, **COUNTS, trust=trust, noise_sharers=sharers)
    sample = release_statistics(plan, SecureRandom(), people=[], size=20_000)
    scale = 2.0 * share / 80
    assert is_noise_of(sample, scale)
    assert not is_noise_of(sample * 2 / 3, scale)
    assert not is_noise_of(sample * 3 / 2, scale)


def test_under_central_trust_the_client_adds_none(make_plan):
    plan = make_plan(rounds=4, **COUNTS, trust="central")
    assert release_statistics(plan, SecureRandom(), people=[], size=3).tolist() == [0, 0, 0]


def test_a_source_that_can_be_predicted_is_refused(make_plan):
    with pytest.raises(PrivacyError, match="SeededRandom can be predicted: a private plan expects SecureRandom"):
        release_statistics(make_plan(rounds=4, **COUNTS), SeededRandom(0), people=[], size=3)


def test_the_ledger_books_the_counts_of_a_run_once(make_plan, tmp_path):
    plan = make_plan(rounds=4, **COUNTS)
    ledger = new_ledger(tmp_path, policy_for(plan))
    for expected in (Charge.CHARGED, Charge.ALREADY_CHARGED):
        assert ledger.charge("run/statistics", plan.statistics_release(), plan=plan, kind=Kind.STATISTICS) == expected
    with pytest.raises(PrivacyError, match="would bring statistics of this run to 2 steps, expected <= 1, which the"):
        ledger.charge("run/again", plan.statistics_release(), plan=plan, kind=Kind.STATISTICS)
    for number in range(4):
        ledger.charge(f"run/{number}", plan.training(1), plan=plan)
    assert ledger.spent() == plan.epsilon_after(4, statistics=True) <= 8.0
    with pytest.raises(PrivacyError, match="policy max_epsilon"):
        ledger.charge("other/statistics", plan.statistics_release(), plan=plan, kind=Kind.STATISTICS)


def test_the_ledger_refuses_counts_that_the_plan_lacks_or_that_cost_otherwise(make_plan, tmp_path):
    bare, plan = make_plan(rounds=4), make_plan(rounds=4, **COUNTS)
    ledger = new_ledger(tmp_path, policy_for(plan, min_noise_multiplier=0.5))
    with pytest.raises(PrivacyError, match="steps=1: expected 1 to 0 for statistics"):
        ledger.charge("run/statistics", plan.statistics_release(), plan=bare, kind=Kind.STATISTICS)
    with pytest.raises(PrivacyError, match="which the plan says"):
        ledger.charge("run/statistics", Steps(3.0, 1.0, 1), plan=plan, kind=Kind.STATISTICS)
