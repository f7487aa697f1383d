"""The attack itself: it finds what is there, and what a sound Gaussian engine shows stays below the claim."""

import numpy as np
import pytest
import torch
from scipy import stats

from fedrec.privacy import mechanism as mechanism_module
from fedrec.privacy.accounting import epsilon
from fedrec.privacy.audit.bounds import epsilon_of_gaussian, gaussian_mu, one_run_epsilon
from fedrec.privacy.audit.canaries import attack, diracs, log_likelihood_ratios
from fedrec.privacy.audit.suite import made_up_people
from fedrec.privacy.randomness import SecureRandom

CANARIES = 6000


@pytest.fixture
def one_step(plan_at):
    """Claims epsilon 4.38: one step without sampling at sigma 1, where Gaussian privacy is exact."""
    plan = plan_at(4.38, sampling_rate=1.0, rounds=1)
    assert plan.noise_multiplier == pytest.approx(1.0, abs=2e-3)
    return plan


def attacked(engine, *, canaries=CANARIES):
    rng = np.random.default_rng()
    return attack(engine, made_up_people(engine.items, 5, rng=rng), canaries=canaries, rng=rng)


def test_sound_engine_stays_below_its_claim_where_the_estimate_is_exact(engine_of, one_step):
    found = attacked(engine_of(one_step))
    assert found.gaussian.lower <= 1.0
    assert 2.0 < found.gdp_epsilon < one_step.epsilon
    assert 0.8 < found.gaussian.estimate < 1.4  # the largest of nine: 1.05, deviation .04
    assert 0.5 < found.strict_epsilon < one_step.epsilon


@pytest.mark.parametrize(("share", "at_least"), [(2 / 3, 4.5), (0.5, 6.5), (0.0, 20.0)])
def test_too_little_noise_exceeds_the_claim(engine_of, one_step, monkeypatch, share, at_least):
    engine, honest = engine_of(one_step), SecureRandom.normal
    monkeypatch.setattr(SecureRandom, "normal", lambda self, size: share * honest(self, size))
    assert attacked(engine).gdp_epsilon > at_least > one_step.epsilon


def test_missing_clipping_exceeds_the_claim(engine_of, one_step, monkeypatch):
    engine = engine_of(one_step)
    monkeypatch.setattr(mechanism_module, "clip_sum", lambda rows, clip_norm, kind: rows.double().sum(dim=0))
    found = attacked(engine)
    assert found.gdp_epsilon > 15
    assert found.strict_epsilon > one_step.epsilon  # the strict bound sees it too


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        (8.0, {}),
        (8.0, {"sampling_rate": 0.02, "rounds": 80}),
        (8.0, {"sampling_rate": 1.0}),
        (1.0, {"sampling_rate": 0.05}),
        (20.0, {"clipping": "flat"}),
    ],
)
def test_no_threshold_shows_more_of_a_sound_mechanism_than_the_claim(plan_at, target, changes):
    """With 100,000 canaries drawn from the plan's own law, not from the engine: the estimate errs downwards."""
    plan, rng = plan_at(target, **changes), np.random.default_rng(5)
    scores = np.zeros((2, 50_000))
    for _ in range(plan.steps):
        values = plan.noise_multiplier * rng.standard_normal(scores.shape)
        values[1] += rng.random(scores.shape[1]) < plan.sampling_rate
        scores += log_likelihood_ratios(values, plan)
    is_in = np.repeat([False, True], scores.shape[1])
    thresholds = np.quantile(scores, np.arange(0.1, 0.95, 0.1))
    limit = gaussian_mu(scores.ravel(), is_in, thresholds=thresholds, miss=0.05)
    assert epsilon_of_gaussian(limit.lower, plan.delta) <= target
    assert epsilon(plan.noise_multiplier, plan.sampling_rate, plan.steps, plan.delta) <= target


def test_ratio_is_zero_for_a_value_that_tells_nothing(plan_at):
    plan = plan_at(sampling_rate=1.0)
    assert log_likelihood_ratios(np.array([0.5]), plan)[0] == pytest.approx(0.0)
    assert log_likelihood_ratios(np.array([1e6]), plan_at())[0] > 1e5
    assert log_likelihood_ratios(np.array([-1e6]), plan_at())[0] == pytest.approx(np.log(0.75))


def test_ratio_is_that_of_the_two_densities(plan_at):
    plan, values = plan_at(), np.linspace(-3, 4, 8)
    absent, present = (stats.norm.pdf(values, mean, plan.noise_multiplier) for mean in (0.0, 1.0))
    expected = np.log(0.75 * absent + 0.25 * present) - np.log(absent)
    assert log_likelihood_ratios(values, plan) == pytest.approx(expected)


def test_attacker_knows_what_the_others_contribute(engine_of, one_step, monkeypatch):
    """Without noise every guess is right, however much 200 people add on the same coordinates."""
    engine, rng = engine_of(one_step), np.random.default_rng(6)
    monkeypatch.setattr(SecureRandom, "normal", lambda self, size: np.zeros(size))
    found = attack(engine, made_up_people(engine.items, 200, rng=rng), canaries=100, rng=rng)
    surest_half_right = one_run_epsilon(100, 50, 50, delta=1e-5, miss=0.05 / 5)
    assert found.strict_epsilon > surest_half_right - 1e-4
    assert max(np.abs(found.steps[0].known[:100])) > 1


def test_each_canary_is_long_and_alone_on_its_coordinate(plan_at):
    rows = diracs(np.array([3, 0]), 5, plan_at(clip_norm=0.5))
    assert torch.equal(rows, torch.tensor([[0.0, 0, 0, 500, 0], [500, 0, 0, 0, 0]]))


def test_attack_goes_through_every_step_with_people_beside_the_canaries(engine_of, plan_at):
    plan = plan_at(rounds=4, local_steps=2)
    found = attacked(engine_of(plan), canaries=100)
    assert len(found.steps) == plan.steps == 8
    assert all(step.people == 5 for step in found.steps)
    assert sum(len(step.chosen) for step in found.steps) > 0
    assert sum(len(step.added) for step in found.steps) > 40
    assert any(step.known.any() for step in found.steps)
