import math

import pytest
from scipy.stats import norm

from fedrec.privacy.accounting import composed_epsilon
from fedrec.privacy.report import attacker
from fedrec.privacy.steps import Steps

DELTA = 1e-5
ONE = (Steps(2.0, 1.0, 1),)  # two Gaussians half a standard deviation apart
SAMPLED = (Steps(1.2, 0.25, 30),)


def test_one_gaussian_release_has_mu_of_one_over_its_noise():
    assert attacker.gdp_mu(attacker.delta_curve(ONE, DELTA)) == pytest.approx(0.5, abs=1e-3)


def test_four_gaussian_releases_have_twice_the_mu_of_one():
    assert attacker.gdp_mu(attacker.delta_curve((Steps(2.0, 1.0, 4),), DELTA)) == pytest.approx(1.0, abs=1e-3)


def test_gaussian_delta_is_zero_for_no_shift_and_total_variation_at_epsilon_zero():
    assert attacker.gaussian_delta(0.0, 1.0) == 0.0
    assert attacker.gaussian_delta(1.5, 0.0) == pytest.approx(2 * norm.cdf(0.75) - 1, rel=1e-9)


@pytest.mark.parametrize(("mu", "epsilon"), [(0.02, 0.9), (0.1, 3.0), (1.0, 20.0), (3.0, 5.0), (40.0, 700.0)])
def test_gaussian_delta_equals_the_closed_form_by_scipy_far_into_the_tail(mu, epsilon):
    expected = norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon + norm.logcdf(-epsilon / mu - mu / 2))
    assert attacker.gaussian_delta(mu, epsilon) == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_advantage_of_one_gaussian_release_is_its_total_variation():
    found = attacker.advantage(attacker.delta_curve(ONE, DELTA))
    assert found == pytest.approx(2 * norm.cdf(0.25) - 1, abs=1e-3)
    assert abs(found - (2 * norm.cdf(0.5) - 1)) > 0.1  # half the noise is told apart


@pytest.mark.parametrize("false_alarms", [0.001, 0.01, 0.1])
def test_true_positive_rate_bounds_the_best_test_between_two_gaussians_closely(false_alarms):
    best = norm.cdf(norm.ppf(false_alarms) + 0.5)  # Neyman-Pearson
    found = attacker.true_positive_rate(attacker.delta_curve(ONE, DELTA), false_alarms)
    assert best <= found <= 1.1 * best


def test_mu_is_no_smaller_than_any_point_of_the_curve_asks_for():
    epsilons, deltas = attacker.delta_curve(SAMPLED, DELTA)
    mu = attacker.gdp_mu((epsilons, deltas))
    assert all(attacker.gaussian_delta(mu, e) >= d * (1 - 1e-9) for e, d in zip(epsilons, deltas, strict=True))
    too_small = 0.98 * mu
    assert any(attacker.gaussian_delta(too_small, e) < d for e, d in zip(epsilons, deltas, strict=True))


def test_curve_ends_at_the_stated_delta():
    epsilons, deltas = attacker.delta_curve(SAMPLED, DELTA)
    assert epsilons[-1] == composed_epsilon(SAMPLED, DELTA)
    assert deltas[-1] == pytest.approx(DELTA, rel=0.05)
    assert list(deltas) == sorted(deltas, reverse=True)


def test_nothing_spent_tells_an_attacker_nothing():
    curve = attacker.delta_curve((), DELTA)
    assert attacker.advantage(curve) == 0.0
    assert attacker.gdp_mu(curve) == 0.0
    assert attacker.true_positive_rate(curve, 0.01) == pytest.approx(0.01)


def test_something_spent_tells_an_attacker_something_even_where_epsilon_is_zero():
    """Noise so large that delta covers it all: two Gaussians a twentieth of a deviation apart are still two."""
    spent, delta = (Steps(20.0, 1.0, 1),), 0.05
    assert composed_epsilon(spent, delta) == 0.0
    curve = attacker.delta_curve(spent, delta)
    assert attacker.advantage(curve) == pytest.approx(2 * norm.cdf(0.025) - 1, abs=1e-3)
    assert attacker.gdp_mu(curve) == pytest.approx(0.05, abs=2e-3)
    assert attacker.true_positive_rate(curve, 0.1) >= norm.cdf(norm.ppf(0.1) + 0.05)


def test_a_loss_too_large_for_a_double_is_certainty_and_no_overflow():
    curve = attacker.delta_curve((Steps(0.02, 1.0, 1),), DELTA)
    assert attacker.advantage(curve) == pytest.approx(1.0)
    assert attacker.true_positive_rate(curve, 0.001) == pytest.approx(1.0)
    assert math.isfinite(attacker.gdp_mu(curve))


@pytest.mark.parametrize("spendings", [ONE, SAMPLED, (*ONE, *SAMPLED), (Steps(2.0, 0.1, 400),)])
def test_epsilon_without_amplification_is_what_the_accountant_bounds_from_above(spendings):
    bound = composed_epsilon(tuple(s._replace(sampling_rate=1.0) for s in spendings), DELTA)
    exact = attacker.unsampled_epsilon(spendings, DELTA)
    assert 0.999 * bound <= exact <= bound


def test_epsilon_without_amplification_of_nothing_is_zero():
    assert attacker.unsampled_epsilon((), DELTA) == 0.0
