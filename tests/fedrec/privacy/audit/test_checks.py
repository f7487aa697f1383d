"""Each test of chance accepts what the plan says and rejects what is a third off, at the level it states."""

import math

import numpy as np
import pytest

from fedrec.privacy.audit import checks
from fedrec.privacy.audit.checks import Noise
from fedrec.privacy.plan import PrivacyPlan
from tests.fedrec.privacy.audit.conftest import DEFAULT

RNG = np.random.default_rng(3)


@pytest.fixture
def at_rate():
    """A plan of which only the sampling rate matters here."""
    return lambda rate=0.25: PrivacyPlan.without_privacy(**(DEFAULT | {"sampling_rate": rate}))


def noise(*, scale: float = 1.0, steps: int = 20, width: int = 1024, rng: np.random.Generator = RNG) -> list[Noise]:
    return [Noise(f"step {i}", scale * rng.standard_normal(width)) for i in range(steps)]


def coins(plan, *, steps: int = 30, people: int = 200, rng: np.random.Generator = RNG) -> np.ndarray:
    return rng.random((steps, people)) < plan.sampling_rate


def test_planned_noise_passes_and_two_thirds_and_three_halves_fail():
    assert checks.noise_scale("noise", noise()).passed
    for wrong in (2 / 3, 3 / 2, 0.5, 0.0):
        check = checks.noise_scale("noise", noise(scale=wrong))
        assert not check.passed
        assert "of the planned one, expected 0.97" in check.detail


def test_noise_of_the_right_size_and_the_wrong_shape_fails():
    assert checks.noise_shape(noise()).passed
    uniform = [Noise("uniform", RNG.uniform(-math.sqrt(3), math.sqrt(3), 20_000))]
    assert checks.noise_scale("noise", uniform).passed
    assert not checks.noise_shape(uniform).passed
    assert not checks.noise_shape([Noise("laplace", RNG.laplace(0, math.sqrt(0.5), 20_000))]).passed


@pytest.mark.parametrize("sign", [1.0, -1.0, 0.5])
def test_noise_used_twice_fails_and_names_both_uses(sign):
    fresh = noise()
    assert checks.noise_is_fresh(fresh).passed
    reused = [*fresh, Noise("client 7", sign * fresh[4].values)]
    check = checks.noise_is_fresh(reused)
    assert not check.passed
    assert "step 4 and client 7" in check.detail


def test_noise_that_is_partly_shared_fails():
    shared = RNG.standard_normal(1024)
    check = checks.noise_is_fresh([Noise("a", one.values + shared) for one in noise(steps=2)])
    assert not check.passed


def test_missing_noise_cannot_pass_as_fresh():
    check = checks.noise_is_fresh([*noise(), Noise("client 3", np.zeros(1024))])
    assert not check.passed
    assert check.detail == "client 3: no noise at all"


def test_coins_of_the_planned_rate_pass_every_test(at_rate):
    for rate in (0.25, 0.02, 0.9, 1.0):
        plan = at_rate(rate)
        masks = coins(plan, people=2000)
        for check in (
            checks.inclusion_rate(masks, plan, name="rate"),
            checks.batches_vary(masks, plan),
            checks.people_vary(masks, plan),
            checks.batches_overlap(masks, plan),
        ):
            assert check.passed, check


@pytest.mark.parametrize("share", [2 / 3, 1.3])
def test_coins_of_another_rate_fail(at_rate, share):
    masks = coins(at_rate(0.25 * share))
    assert not checks.inclusion_rate(masks, at_rate(), name="rate").passed


def test_one_person_left_out_at_rate_one_fails(at_rate):
    plan = at_rate(1.0)
    masks = coins(plan)
    masks[3, 5] = False
    assert not checks.batches_vary(masks, plan).passed
    assert not checks.people_vary(masks, plan).passed
    assert not checks.inclusion_rate(masks, plan, name="rate").passed


def test_batches_of_fixed_size_fail(at_rate):
    masks = np.array([RNG.permutation(200) < 50 for _ in range(30)])
    assert checks.inclusion_rate(masks, at_rate(), name="rate").passed
    assert not checks.batches_vary(masks, at_rate()).passed


def test_shuffled_epochs_fail(at_rate):
    epochs = [RNG.permutation(200).reshape(4, 50) for _ in range(8)]
    masks = np.array([np.isin(np.arange(200), batch) for epoch in epochs for batch in epoch])
    assert not checks.people_vary(masks, at_rate()).passed
    assert not checks.batches_overlap(masks, at_rate()).passed


def test_the_same_people_each_time_fail(at_rate):
    masks = np.tile(RNG.random(200) < 0.25, (30, 1))
    assert not checks.people_vary(masks, at_rate()).passed
    assert not checks.batches_overlap(masks, at_rate()).passed


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.02, 0.97])
def test_each_test_errs_as_often_as_it_says(at_rate, monkeypatch, rate):
    """At one in a hundred instead of one in 10^9, over 400 honest draws: about 4, surely below 15."""
    monkeypatch.setattr(checks, "FALSE_ALARM", 1e-2)
    plan, rng = at_rate(rate), np.random.default_rng(4)
    failed = np.zeros(7, int)
    for _ in range(400):
        masks, drawn = coins(plan, people=1000, rng=rng), noise(steps=4, rng=rng)
        found = (
            checks.inclusion_rate(masks, plan, name="rate"),
            checks.batches_vary(masks, plan),
            checks.people_vary(masks, plan),
            checks.batches_overlap(masks, plan),
            checks.noise_scale("noise", drawn),
            checks.noise_shape(drawn),
            checks.noise_is_fresh(drawn),
        )
        failed += [not check.passed for check in found]
    assert (failed < 15).all(), failed
