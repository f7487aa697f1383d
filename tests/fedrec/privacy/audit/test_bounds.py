"""Bounds against closed forms, the published algorithm written out, and mechanisms whose epsilon is known."""

import math

import numpy as np
import pytest
from scipy import stats

from fedrec.privacy.audit.bounds import (
    epsilon_of_gaussian,
    gaussian_mu,
    one_run_epsilon,
    one_run_p_value,
    rate_limit,
    strict_epsilon,
)


@pytest.mark.parametrize(("mu", "delta", "epsilon"), [(1.0, 1e-5, 4.377), (0.5, 1e-5, 1.9930), (2.0, 1e-6, 11.12)])
def test_epsilon_of_gaussian_is_the_closed_form(mu, delta, epsilon):
    """4.377 is the known epsilon of sigma = 1 at delta 1e-5; each must solve Corollary 2.13."""
    found = epsilon_of_gaussian(mu, delta)
    if mu == 1.0:
        assert found == pytest.approx(epsilon, abs=2e-3)
    left = stats.norm.cdf(-found / mu + mu / 2) - math.exp(found) * stats.norm.cdf(-found / mu - mu / 2)
    assert left == pytest.approx(delta, rel=1e-6)


def test_epsilon_of_gaussian_agrees_with_the_accountant():
    from fedrec.privacy.accounting import epsilon

    for sigma in (0.7, 1.0, 3.0, 10.0):
        exact = epsilon_of_gaussian(1 / sigma, 1e-5)
        assert exact <= epsilon(sigma, 1.0, 1, 1e-5) <= exact + 2e-3


@pytest.mark.parametrize(("mu", "expected"), [(0.0, 0.0), (-1.0, 0.0), (1e-9, 0.0), (math.inf, math.inf)])
def test_epsilon_of_gaussian_at_its_ends(mu, expected):
    assert epsilon_of_gaussian(mu, 1e-5) == expected


def published_p_value(m, r, v, epsilon, delta):
    """The loop of Steinke et al. 2023, Appendix D."""
    q = 1 / (1 + math.exp(-epsilon))
    beta, alpha, total = stats.binom.sf(v - 1, r, q), 0.0, 0.0
    for i in range(1, v + 1):
        total += stats.binom.pmf(v - i, r, q)
        alpha = max(alpha, total / i)
    return min(beta + alpha * delta * 2 * m, 1.0)


@pytest.mark.parametrize(("m", "r", "v"), [(1000, 100, 95), (1000, 1000, 600), (500, 20, 20), (50, 50, 10), (50, 5, 0)])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0])
def test_p_value_is_the_published_one(m, r, v, delta, epsilon):
    expected = published_p_value(m, r, v, epsilon, delta)
    assert one_run_p_value(m, r, v, epsilon=epsilon, delta=delta) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("guesses", [10, 100, 500])
def test_all_guesses_right_gives_the_closed_form(guesses):
    """Without delta, accuracy a is refuted when a^r < 5 %: epsilon = logit of 0.05^(1/r)."""
    accuracy = 0.05 ** (1 / guesses)
    expected = math.log(accuracy / (1 - accuracy))
    assert one_run_epsilon(guesses, guesses, guesses, delta=0.0, miss=0.05) == pytest.approx(expected, abs=1e-5)


def test_half_right_shows_nothing_and_delta_only_lowers_the_bound():
    assert one_run_epsilon(100, 100, 50, delta=1e-5, miss=0.05) == 0.0
    without, small, large = (one_run_epsilon(1000, 200, 190, delta=d, miss=0.05) for d in (0.0, 1e-5, 1e-3))
    assert without > small > large > 0


def test_perfect_guesses_of_endless_canaries_stop_at_the_largest_epsilon():
    assert one_run_epsilon(1, 1, 1, delta=0.0, miss=1.0) == 100.0


def randomised_response(epsilon, rng, *, canaries=1000):
    """The mechanism for which the strict bound is tight: each canary's coin, flipped with chance 1 / (1 + e^eps)."""
    is_in = rng.random(canaries) < 0.5
    seen = is_in ^ (rng.random(canaries) < 1 / (1 + math.exp(epsilon)))
    return seen + 1e-3 * rng.random(canaries), is_in


def test_strict_bound_holds_for_randomised_response_and_is_close():
    rng = np.random.default_rng(0)
    bounds = [strict_epsilon(*randomised_response(2.0, rng), delta=0.0, miss=0.05) for _ in range(200)]
    assert np.mean(np.array(bounds) > 2.0) <= 0.05
    assert np.median(bounds) > 1.5
    stronger = [strict_epsilon(*randomised_response(3.0, rng), delta=0.0, miss=0.05) for _ in range(50)]
    assert np.mean(np.array(stronger) > 2.0) > 0.9  # a mechanism that leaks more is told from it


def test_strict_bound_at_a_stricter_confidence_is_lower():
    scores, is_in = randomised_response(2.0, np.random.default_rng(1))
    assert strict_epsilon(scores, is_in, delta=0.0, miss=1e-7) < strict_epsilon(scores, is_in, delta=0.0, miss=0.05)


def gaussian_scores(mu, rng, *, canaries=2000):
    is_in = rng.random(canaries) < 0.5
    return rng.normal(size=canaries) + mu * is_in, is_in


@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0, 2.5])
def test_gaussian_limit_is_below_the_truth_and_its_estimate_near(mu):
    rng, thresholds = np.random.default_rng(2), mu / 2 + np.linspace(-1, 1, 9)
    found = [gaussian_mu(*gaussian_scores(mu, rng), thresholds=thresholds, miss=1e-3) for _ in range(300)]
    assert sum(limit.lower > mu for limit in found) <= 2  # expected 0.3 of 300
    assert np.median([limit.estimate for limit in found]) == pytest.approx(mu, abs=0.25)
    wide = [gaussian_mu(*gaussian_scores(mu + 0.6, rng), thresholds=thresholds, miss=1e-3) for _ in range(50)]
    assert np.mean([limit.lower > mu for limit in wide]) > 0.9


def test_rate_limit_is_clopper_pearson():
    assert rate_limit(0, 250, miss=0.05) == pytest.approx(1 - 0.05 ** (1 / 250))
    assert stats.binom.cdf(7, 100, rate_limit(7, 100, miss=0.01)) == pytest.approx(0.01)
    assert rate_limit(10, 10, miss=0.05) == 1.0
