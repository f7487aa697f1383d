import json

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import REPLACE_ONE, composed_epsilon, composed_rdp_epsilon, epsilon, round_up
from fedrec.privacy.forecast import epsilon_by_round, forecast, more_rounds, other_rates

pytestmark = pytest.mark.usefixtures("coarse_accounting")


@pytest.fixture
def plan(make_plan):
    return make_plan(rounds=10, local_steps=2)


def test_every_number_of_the_forecast_is_the_accountant_s_rounded_up(plan):
    found = json.loads(json.dumps(forecast(plan), allow_nan=False))
    assert found.items() >= plan.to_dict().items()
    assert (found["rounds"], found["statement"], found["sampling_rates"]) == (10, plan.statement(), None)
    for point in found["epsilon_by_round"]:
        assert (
            point["epsilon"]
            == round_up(plan.epsilon_after(2 * point["round"]))
            >= plan.epsilon_after(2 * point["round"])
        )
    assert found["epsilon_for_person_at"] == {str(k): round_up(plan.epsilon_for_person_at(k)) for k in (1, 2, 3, 5, 10)}
    assert found["epsilon_replace_one"] == round_up(composed_epsilon(plan.spendings(), 1e-5, relation=REPLACE_ONE))
    assert found["epsilon_zero_out"] == found["epsilon_for_person_at"]["1"] <= 8.0
    assert found["rdp_epsilon"] == round_up(composed_rdp_epsilon(plan.spendings(), 1e-5)) > 8.0
    assert found["delta_is_below_one_over_n"] is True


def test_a_short_run_is_told_round_by_round_and_a_long_one_at_fifty(make_plan):
    assert [point["round"] for point in epsilon_by_round(make_plan(rounds=4))] == [1, 2, 3, 4]
    long = [point["round"] for point in epsilon_by_round(make_plan(rounds=1000, sampling_rate=0.01))]
    assert len(long) <= 51
    assert (long[0], long[-1]) == (1, 1000)


def test_metric_releases_are_spread_over_the_rounds_and_all_spent_at_the_end(make_plan):
    plan = make_plan(rounds=4, metric_releases=2, metric_noise_multiplier=15.0)
    curve = [point["epsilon"] for point in epsilon_by_round(plan)]
    expected = [plan.epsilon_after(steps, metric_releases=made) for steps, made in ((1, 1), (2, 1), (3, 2), (4, 2))]
    assert curve == [round_up(value) for value in expected]
    assert curve[-1] == round_up(plan.epsilon_for_person_at(1))
    assert more_rounds(plan, 2.0)["epsilon_at_same_noise"] == round_up(plan.epsilon_after(8, metric_releases=2))


def test_more_rounds_need_more_noise_or_more_epsilon(plan):
    found = more_rounds(plan, 1.5)
    assert found["rounds"] == 15
    assert found["epsilon_at_same_noise"] == round_up(plan.epsilon_after(30)) > 8.0
    noise = found["noise_multiplier"]
    assert epsilon(noise, 0.25, 30, 1e-5) <= 8.0 < epsilon(noise - 2e-4, 0.25, 30, 1e-5)


def test_other_rates_keep_the_promise_and_the_least_noise_on_the_mean_is_marked(make_plan, monkeypatch):
    monkeypatch.setattr("fedrec.privacy.forecast.SAMPLING_RATES", (0.1, 0.25, 1.0))
    plan = make_plan(rounds=3)
    found = other_rates(plan)
    assert [line["sampling_rate"] for line in found] == [0.1, 0.25, 1.0]
    for line in found:
        assert epsilon(line["noise_multiplier"], line["sampling_rate"], 3, 1e-5) <= 8.0
        assert line["people_per_step"] == line["sampling_rate"] * 80
        assert line["relative_noise"] == line["noise_multiplier"] / line["people_per_step"]
    best = [line for line in found if line["is_best"]]
    assert [line["relative_noise"] for line in best] == [min(line["relative_noise"] for line in found)]
    assert next(line for line in found if line["sampling_rate"] == 0.25)["noise_multiplier"] == plan.noise_multiplier


def test_a_promise_that_no_noise_keeps_is_told_as_none(make_plan, monkeypatch):
    plan = make_plan(rounds=3)

    def refuse(*_, **__):
        raise PrivacyError("no noise reaches it")

    monkeypatch.setattr("fedrec.privacy.plan.calibrated_noise_multiplier", refuse)
    assert more_rounds(plan, 2.0)["noise_multiplier"] is None
    found = other_rates(plan)
    assert {line["relative_noise"] for line in found} == {None}
    assert not any(line["is_best"] for line in found)


def test_a_plan_without_privacy_has_nothing_to_forecast(make_open_plan):
    with pytest.raises(PrivacyError, match="a plan without privacy: expected a private one"):
        forecast(make_open_plan())
    with pytest.raises(PrivacyError, match="a plan without privacy: expected a private one"):
        more_rounds(make_open_plan(), 2.0)
    with pytest.raises(PrivacyError, match="a plan without privacy: expected a private one"):
        other_rates(make_open_plan())
