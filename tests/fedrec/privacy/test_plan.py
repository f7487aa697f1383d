import dataclasses
import json
import math
import subprocess
import sys

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import ACCOUNTANT, epsilon
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.plan_words import NOT_PRIVATE
from fedrec.privacy.randomness import SecureRandom, SeededRandom


def test_a_calibrated_plan_keeps_its_promise_by_its_own_accountant(make_plan):
    plan = make_plan()
    assert epsilon(plan.noise_multiplier, plan.sampling_rate, plan.steps, plan.delta) <= plan.epsilon == 8.0
    assert plan.epsilon_after(plan.steps) <= 8.0
    assert plan.private is True


def test_a_plan_counts_every_local_step(make_plan):
    plan = make_plan(rounds=10, local_steps=3)
    assert (plan.steps, plan.rounds) == (30, 10)
    assert plan.noise_multiplier == make_plan().noise_multiplier


def test_the_normaliser_is_the_public_expected_batch(make_plan):
    assert make_plan().normaliser == 0.25 * 80


def test_epsilon_grows_from_zero_to_the_target(make_plan):
    plan = make_plan()
    curve = [plan.epsilon_after(steps) for steps in (0, 1, 10, 30)]
    assert curve[0] == 0.0
    assert curve == sorted(curve)
    assert 7.99 < curve[-1] <= 8.0


def test_a_person_at_more_clients_has_less_privacy(make_plan):
    plan = make_plan()
    assert plan.epsilon_for_person_at(1) == plan.epsilon_after(30)
    assert plan.epsilon_for_person_at(2) == plan.epsilon_after(60) > plan.epsilon_after(30)


def test_the_statement_says_it_whole(make_plan):
    assert make_plan().statement() == (
        "Each person at a client has (epsilon = 8, delta = 1e-05)-differential privacy over all 30 training steps, "
        f"where neighbouring data sets differ in one person (add or remove one person), accounted by {ACCOUNTANT}; "
        "delta is below one over the 80 people expected at a client. "
        "Trust: local. Each client adds all of the noise itself, so nobody else needs to be trusted for it."
    )


def test_the_statement_admits_a_delta_that_is_too_large(make_plan):
    plan = dataclasses.replace(make_plan(), delta=0.02)
    assert not plan.delta_is_below_one_over_n
    assert "delta is NOT below one over the 80 people" in plan.statement()
    assert make_plan().delta_is_below_one_over_n


def test_the_statement_never_rounds_epsilon_down(make_plan):
    assert "epsilon = 8.1235," in dataclasses.replace(make_plan(), epsilon=8.12341).statement()
    assert "epsilon = 1234.5642," in dataclasses.replace(make_plan(), epsilon=1234.56411).statement()


def test_a_plan_without_privacy_says_so_everywhere(make_open_plan):
    plan = make_open_plan()
    assert plan.statement() == NOT_PRIVATE
    assert plan.statement().startswith("NOT PRIVATE")
    assert (plan.private, plan.epsilon, plan.delta, plan.noise_multiplier) == (False, None, None, 0.0)
    assert plan.epsilon_after(3) is None
    assert plan.epsilon_for_person_at(2) is None
    assert not plan.delta_is_below_one_over_n
    assert plan.to_dict()["private"] is False


def test_a_plan_cannot_be_changed(make_plan):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_plan().epsilon = 1.0


@pytest.mark.parametrize("make", ["make_plan", "make_open_plan"])
def test_a_plan_survives_json(make, request):
    plan = request.getfixturevalue(make)()
    again = PrivacyPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.digest() == plan.digest()


def test_the_digest_tells_every_public_number(make_plan, make_open_plan):
    shape = [
        {}, {"sampling_rate": 0.2}, {"rounds": 20}, {"rounds": 15, "local_steps": 2}, {"clip_norm": 2.0},
        {"clipping": "auto-s"}, {"expected_people": 81},
    ]  # fmt: skip
    shape += [{"batch_cap": 20, "max_people": 90}, {"batch_cap": 20, "max_people": 91}, {"metric_releases": 2}]
    promise = [{}, {"epsilon": 9.0}, {"delta": 2e-5}, {"noise_multiplier": 2.0}]
    plans = [make_open_plan(**change) for change in shape]
    plans += [dataclasses.replace(make_plan(), **change) for change in promise]
    digests = {plan.digest() for plan in plans}
    assert len(digests) == len(plans)
    assert all(len(digest) == 64 for digest in digests)
    assert make_open_plan(clip_norm=1).digest() == make_open_plan(clip_norm=1.0).digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_multiplier": 1.0}, r"noise_multiplier=1.0: gives epsilon 9\.\d+, expected <= 8.0"),
        ({"noise_multiplier": 0.0}, r"noise_multiplier=0.0: gives epsilon inf, expected <= 8.0"),
        ({"noise_multiplier": -2.0}, "noise_multiplier=-2.0: expected a finite number >= 0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier=nan: expected a finite number"),
        ({"epsilon": 7.0}, r"gives epsilon 7.9\d+, expected <= 7.0"),
        ({"epsilon": math.inf}, "epsilon=inf: expected a finite number; set privacy.epsilon"),
        ({"epsilon": None}, "epsilon=None: expected a finite number; set privacy.epsilon"),
        ({"epsilon": -1}, "epsilon=-1.0: expected > 0; set privacy.epsilon"),
        ({"delta": None}, "delta=None: expected a finite number"),
        ({"delta": 1.5}, r"delta=1.5: expected a number in \(0, 1\)"),
        ({"sampling_rate": 0.5}, "gives epsilon"),
        ({"sampling_rate": "0.25"}, "sampling_rate='0.25': expected a finite number"),
        ({"steps": 60}, "gives epsilon"),
        ({"steps": 30.0}, "steps=30.0: expected a whole number >= 1"),
        ({"steps": True}, "steps=True: expected a whole number >= 1"),
        ({"local_steps": 7}, "steps=30: expected a multiple of local_steps=7"),
        ({"clip_norm": True}, "clip_norm=True: expected a finite number"),
        ({"clipping": "none"}, "clipping='none': expected flat or auto-s; set privacy.clipping"),
        ({"expected_people": 0}, "expected_people=0: expected a whole number >= 1"),
        ({"unit": "interaction"}, "unit='interaction': expected 'person at a client', the only one supported here"),
        ({"relation": "replace one person"}, "relation='replace one person': expected 'add or remove one person'"),
        ({"accountant": "GDP"}, "accountant='GDP': expected 'dp-accounting"),
        ({"batch_cap": 20}, "batch_cap=20, max_people=None: expected both or neither"),
        ({"batch_cap": 5, "max_people": 80}, "gives epsilon"),
        ({"batch_cap": 0, "max_people": 80}, "batch_cap=0: expected a whole number >= 1"),
        ({"max_people": 2.5, "batch_cap": 2}, "max_people=2.5: expected a whole number >= 1"),
        (
            {"metric_releases": 3},
            "metric_noise_multiplier=None, metric_releases=3: expected a noise multiplier exactly",
        ),
        ({"metric_noise_multiplier": 3}, "metric_noise_multiplier=3, metric_releases=0: expected a noise multiplier"),
        ({"metric_releases": 3, "metric_noise_multiplier": 9.0}, "gives epsilon"),
        ({"metric_releases": 3, "metric_noise_multiplier": 0.0}, "gives epsilon inf"),
        ({"metric_releases": 3, "metric_noise_multiplier": -1.0}, "metric_noise_multiplier=-1.0: expected a finite"),
        ({"metric_releases": 3, "metric_noise_multiplier": "9"}, "metric_noise_multiplier='9': expected a finite"),
        ({"metric_releases": -1}, "metric_releases=-1: expected a whole number >= 0"),
        ({"metric_releases": 1.0}, "metric_releases=1.0: expected a whole number >= 0"),
        ({"private": False}, "a plan without privacy: expected no epsilon, no delta and noise_multiplier=0"),
        ({"private": 1}, "private=1: expected true or false"),
        ({"extra": 1}, r"privacy plan: missing keys \[\], unknown keys \['extra'\]; expected neither"),
    ],
)
def test_a_plan_from_outside_is_refused_when_its_claim_is_not_true(make_plan, change, message):
    with pytest.raises(PrivacyError, match=message):
        PrivacyPlan.from_dict({**make_plan().to_dict(), **change})


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(PrivacyPlan)])
def test_a_plan_from_outside_must_state_everything(make_plan, key):
    values = make_plan().to_dict()
    del values[key]
    with pytest.raises(PrivacyError, match=rf"privacy plan: missing keys \['{key}'\], unknown keys \[\]"):
        PrivacyPlan.from_dict(values)


def test_an_open_plan_cannot_pretend_to_be_private(make_open_plan):
    with pytest.raises(PrivacyError, match="epsilon=None: expected a finite number"):
        PrivacyPlan.from_dict({**make_open_plan().to_dict(), "private": True})


def test_changing_one_number_of_a_plan_is_verified_too(make_plan):
    with pytest.raises(PrivacyError, match="gives epsilon"):
        dataclasses.replace(make_plan(), noise_multiplier=0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0: expected a finite number > 0; set privacy.epsilon"),
        ({"epsilon": -1.0}, "epsilon=-1.0: expected a finite number > 0; set privacy.epsilon"),
        ({"epsilon": math.nan}, "epsilon=nan: expected a finite number; set privacy.epsilon"),
        ({"epsilon": "8"}, "epsilon='8': expected a finite number; set privacy.epsilon"),
        ({"delta": 0.0}, r"delta=0.0: expected a number in \(0, 1\); set privacy.delta"),
        ({"delta": 1.0}, r"delta=1.0: expected a number in \(0, 1\); set privacy.delta"),
        ({"sampling_rate": 0.0}, r"sampling_rate=0.0: expected .*\(0, 1\]"),
        ({"sampling_rate": 1.5}, r"sampling_rate=1.5: expected .*\(0, 1\]"),
        ({"rounds": 0}, "rounds=0: expected a whole number >= 1"),
        ({"rounds": 2.5}, "rounds=2.5: expected a whole number >= 1"),
        ({"local_steps": 0}, "local_steps=0: expected a whole number >= 1"),
        ({"clip_norm": 0.0}, "clip_norm=0.0: expected > 0; set privacy.clip_norm"),
        ({"clip_norm": math.inf}, "clip_norm=inf: expected a finite number; set privacy.clip_norm"),
        ({"clipping": ""}, "clipping='': expected flat or auto-s; set privacy.clipping"),
        ({"expected_people": -3}, "expected_people=-3: expected a whole number >= 1"),
    ],
)
def test_calibration_refuses_numbers_that_make_no_guarantee(make_plan, make_open_plan, change, message):
    with pytest.raises(PrivacyError, match=message):
        make_plan(**change)
    if not {"epsilon", "delta"} & set(change):
        with pytest.raises(PrivacyError, match=message):
            make_open_plan(**change)


def test_predictable_noise_is_refused_by_a_private_plan_alone(make_plan, make_open_plan):
    with pytest.raises(PrivacyError, match="SeededRandom can be predicted: a private plan expects SecureRandom"):
        make_plan().mechanism(SeededRandom(0))
    make_plan().mechanism(SecureRandom())
    make_open_plan().mechanism(SeededRandom(0))


def test_epsilon_refuses_what_is_no_count(make_plan):
    with pytest.raises(PrivacyError, match="steps=-1: expected a whole number >= 0"):
        make_plan().epsilon_after(-1)
    with pytest.raises(PrivacyError, match="clients=0: expected a whole number >= 1"):
        make_plan().epsilon_for_person_at(0)


def test_plan_and_ledger_need_neither_torch_nor_opacus():
    code = (
        "import sys, fedrec.privacy.plan, fedrec.privacy.ledger;"
        "sys.exit(sorted({'torch', 'opacus', 'transformers', 'dp_accounting', 'scipy'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
