"""What else a promise can cover, metric releases and capped batches, and the event that an outsider can account for."""

import dataclasses
import json

import pytest
from dp_accounting import NonPrivateDpEvent
from dp_accounting.pld import PLDAccountant

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps, composed_epsilon
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.plan_words import NOT_PRIVATE

METRICS = {"metric_releases": 5, "metric_noise_multiplier": 20.0}
CAP = {"batch_cap": 48, "max_people": 120}


@pytest.mark.usefixtures("coarse_accounting")
@pytest.mark.parametrize("extra", [METRICS, CAP])
def test_the_promise_covers_everything_the_plan_spends_and_hardly_more(make_plan, extra):
    plan = make_plan(rounds=4, **extra)
    assert composed_epsilon(plan.spendings(), plan.delta) <= 8.0
    assert plan.noise_multiplier > make_plan(rounds=4).noise_multiplier
    with pytest.raises(PrivacyError, match="gives epsilon"):
        dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier - 2e-4)
    again = PrivacyPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan


@pytest.mark.usefixtures("coarse_accounting")
def test_spendings_list_training_and_metric_releases(make_plan):
    plan = make_plan(rounds=4, local_steps=2, **METRICS)
    assert plan.training(3) == Steps(plan.noise_multiplier, 0.25, 3)
    assert plan.metrics_release() == Steps(20.0, 1.0, 1)
    assert plan.spendings() == (plan.training(8), Steps(20.0, 1.0, 5))
    assert make_plan(rounds=4).spendings() == (make_plan(rounds=4).training(4),)
    assert make_plan(rounds=4, **CAP).training(2)[3:] == (48, 120)


@pytest.mark.usefixtures("coarse_accounting")
def test_epsilon_counts_the_metric_releases_that_were_made(make_plan):
    plan = make_plan(rounds=4, **METRICS)
    curve = [plan.epsilon_after(4, metric_releases=count) for count in (0, 1, 5)]
    assert curve == sorted(set(curve))
    assert curve[-1] == plan.epsilon_for_person_at(1) <= 8.0
    assert plan.epsilon_for_person_at(2) == composed_epsilon(2 * plan.spendings(), plan.delta)
    with pytest.raises(PrivacyError, match="steps=-1: expected a whole number >= 0"):
        plan.epsilon_after(4, metric_releases=-1)


def test_a_plan_without_metric_releases_releases_none(make_plan):
    for attempt in (make_plan().metrics_release, lambda: make_plan().epsilon_after(3, metric_releases=1)):
        with pytest.raises(PrivacyError, match="metric_noise_multiplier=None: this plan releases none; make one"):
            attempt()


def test_the_accounting_library_comes_to_the_same_epsilon_from_the_plan_s_event(make_plan):
    plan = make_plan(rounds=4, **METRICS)
    accountant = PLDAccountant()
    accountant.compose(plan.event())
    assert accountant.get_epsilon(plan.delta) == pytest.approx(plan.epsilon_for_person_at(1), abs=1e-6)


@pytest.mark.usefixtures("coarse_accounting")
def test_the_event_of_a_capped_plan_says_so_and_of_an_open_one_that_nothing_is_private(make_plan, make_open_plan):
    event = make_plan(rounds=4, **CAP).event().events[0]
    assert (event.event.truncated_batch_size, event.event.dataset_size, event.count) == (48, 120, 4)
    assert isinstance(make_open_plan().event(), NonPrivateDpEvent)


@pytest.mark.usefixtures("coarse_accounting")
def test_the_statement_mentions_metric_releases_and_a_cap(make_plan):
    assert (
        "over all 4 training steps and 5 releases of noised metrics, where"
        in make_plan(rounds=4, **METRICS).statement()
    )
    assert (
        "over all 4 training steps, at most 48 people in a step of a client with at most 120, where"
        in make_plan(rounds=4, **CAP).statement()
    )


def test_an_open_plan_may_release_metrics_without_noise_and_no_others(make_open_plan):
    plan = make_open_plan(metric_releases=3)
    assert plan.metrics_release() == Steps(0.0, 1.0, 1)
    assert plan.statement() == NOT_PRIVATE
    with pytest.raises(PrivacyError, match="a plan without privacy: expected metric_noise_multiplier=0 or none"):
        dataclasses.replace(plan, metric_noise_multiplier=2.0)


def test_metrics_that_spend_the_whole_promise_are_refused(make_plan):
    with pytest.raises(PrivacyError, match=r"epsilon=8\.0: the other releases spend it all"):
        make_plan(metric_releases=50, metric_noise_multiplier=1.0)
