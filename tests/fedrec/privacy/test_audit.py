"""A white-box audit of one step at sigma about 1, q 1: can an attacker who sees the release beat the claim?

The attacker knows everything but whether one person with a huge gradient took part, and measures along
that gradient. For two Gaussians the trade-off is fixed by mu, the distance of the means in standard
deviations (Dong et al. 2022, https://arxiv.org/abs/1905.02383), whose lower confidence limit gives
an epsilon that an honest engine must not exceed and a sabotaged one must.
"""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from fedrec.privacy import mechanism as mechanism_module
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import SecureRandom

TRIALS = 1500
DELTA = 1e-5


def epsilon_of_mu(mu: float) -> float:
    """Epsilon of mu-Gaussian privacy at DELTA; Corollary 2.13 of Dong et al."""

    def gap(eps: float) -> float:
        removed = math.exp(eps + stats.norm.logcdf(-eps / mu - mu / 2))
        return float(stats.norm.cdf(-eps / mu + mu / 2)) - removed - DELTA

    return float(optimize.brentq(gap, 0.0, 1000.0)) if mu > 0 and gap(0.0) > 0 else 0.0


def audited_epsilon(plan: PrivacyPlan) -> float:
    """Lower limit on epsilon, wrong with probability below 1e-6."""
    canary = torch.tensor([[10.0, 0.0]])

    def scores(gradients: list[torch.Tensor], people: int) -> np.ndarray:
        found = np.empty(TRIALS)
        for trial in range(TRIALS):
            mechanism = plan.mechanism(SecureRandom())
            mechanism.sample(people)
            found[trial] = mechanism.release(gradients, 2)[0]
        return found

    absent, present = scores([], 0), scores([canary], 1)
    spread = max(math.sqrt((absent.var(ddof=1) + present.var(ddof=1)) / 2), 1e-12 * abs(present.mean()))
    mu = (present.mean() - absent.mean()) / spread
    error = math.sqrt(2 / TRIALS + mu**2 / (4 * TRIALS))  # of the two means, and of the pooled spread
    return epsilon_of_mu(min(mu - 5 * error, 40.0))


@pytest.fixture
def plan(make_plan) -> PrivacyPlan:
    """Claims 4.38: one step without sampling at sigma 1."""
    plan = make_plan(epsilon=4.38, sampling_rate=1.0, rounds=1)
    assert plan.noise_multiplier == pytest.approx(1.0, abs=2e-3)
    return plan


def test_the_honest_engine_stays_below_its_claim(plan):
    assert 1.0 < audited_epsilon(plan) < plan.epsilon


@pytest.mark.parametrize(("share", "at_least"), [(2 / 3, 4.9), (0.5, 7.0), (0.0, 100.0)])
def test_too_little_noise_is_caught(plan, monkeypatch, share, at_least):
    honest = SecureRandom.normal
    monkeypatch.setattr(SecureRandom, "normal", lambda self, size: share * honest(self, size))
    assert audited_epsilon(plan) > at_least > plan.epsilon


def test_missing_clipping_is_caught(plan, monkeypatch):
    monkeypatch.setattr(mechanism_module, "clip_sum", lambda gradients, clip_norm, kind: gradients.double().sum(dim=0))
    assert audited_epsilon(plan) > 20 > plan.epsilon


def test_the_measure_itself_is_the_closed_form():
    assert epsilon_of_mu(1.0) == pytest.approx(4.377, abs=2e-3)
    assert epsilon_of_mu(0.0) == 0.0
