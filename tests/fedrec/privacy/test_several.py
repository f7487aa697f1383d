"""Someone at several clients: under one noise they move the sum several times, and that costs more than composing."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import composed_epsilon
from fedrec.privacy.report.attacker import gaussian_delta
from fedrec.privacy.several import epsilon_at_clients
from fedrec.privacy.steps import Steps

DELTA = 1e-5


def one_step_delta(epsilon: float, *, clients: int, noise: float, rate: float) -> float:
    """The larger hockey-stick divergence between J clip norms, J binomial, and none; by quadrature."""
    at = np.linspace(-12 * noise, clients + 12 * noise, 400_001)
    weights = stats.binom.pmf(np.arange(clients + 1), clients, rate)
    without = stats.norm.pdf(at, 0, noise)
    present = sum(w * stats.norm.pdf(at, j, noise) for j, w in enumerate(weights))
    both = ((present, without), (without, present))
    return max(float(np.trapezoid(np.maximum(p - math.exp(epsilon) * q, 0.0), at)) for p, q in both)


@pytest.mark.parametrize(("clients", "rate"), [(2, 0.25), (5, 0.1), (3, 1.0)])
def test_one_step_agrees_with_quadrature(clients, rate):
    found = epsilon_at_clients((Steps(2.0, rate, 1),), clients, DELTA, in_one_sum=True)
    assert one_step_delta(found, clients=clients, noise=2.0, rate=rate) <= DELTA
    assert one_step_delta(found - 0.03, clients=clients, noise=2.0, rate=rate) > DELTA


def test_without_sampling_it_is_one_gaussian_moved_by_as_many_clip_norms():
    found = epsilon_at_clients((Steps(6.0, 1.0, 16),), 3, DELTA, in_one_sum=True)
    assert gaussian_delta(3 * 4 / 6.0, found) <= DELTA < gaussian_delta(3 * 4 / 6.0, found - 0.03)


def test_one_release_of_little_noise_to_someone_at_many_clients_has_a_finite_epsilon():
    found = epsilon_at_clients((Steps(0.66, 1.0, 1),), 10, DELTA, in_one_sum=True)
    assert gaussian_delta(10 / 0.66, found) <= DELTA < gaussian_delta(10 / 0.66, found - 0.1)


def test_at_one_client_nothing_changes_and_at_more_one_noise_costs_more(plan):
    spent = (plan.training(plan.steps),)
    for clients in (1, 2, 3):
        composed = epsilon_at_clients(spent, clients, DELTA, in_one_sum=False)
        assert composed == composed_epsilon(clients * spent, DELTA)
        summed = epsilon_at_clients(spent, clients, DELTA, in_one_sum=True)
        assert summed == composed if clients == 1 else summed > 1.5 * composed


def test_a_cap_costs_more_because_others_are_displaced():
    free, capped = Steps(4.0, 0.25, 3), Steps(4.0, 0.25, 3, 10, 60)
    assert epsilon_at_clients((capped,), 2, DELTA, in_one_sum=True) == pytest.approx(
        epsilon_at_clients((free._replace(noise_multiplier=2.0),), 2, DELTA, in_one_sum=True)
    )


@pytest.mark.parametrize("trust", ["distributed", "central"])
def test_a_plan_states_the_dearer_one_for_its_trust(plan, trust):
    other = dataclasses.replace(plan, trust=trust, noise_sharers=4 if trust == "distributed" else 1)
    spent = plan.spendings()
    assert other.epsilon_for_person_at(3) == epsilon_at_clients(spent, 3, plan.delta, in_one_sum=True)
    assert plan.epsilon_for_person_at(3) == epsilon_at_clients(spent, 3, plan.delta, in_one_sum=False)
    assert other.epsilon_for_person_at(1) == plan.epsilon_for_person_at(1)


def test_no_noise_no_bound_and_bad_numbers_are_refused():
    assert epsilon_at_clients((Steps(0.0, 1.0, 1),), 2, DELTA, in_one_sum=True) == math.inf
    with pytest.raises(PrivacyError, match="clients=0: expected a whole number >= 1"):
        epsilon_at_clients((Steps(1.0, 1.0, 1),), 0, DELTA, in_one_sum=True)
    with pytest.raises(PrivacyError, match=r"delta=1\.0: expected a number in \(0, 1\)"):
        epsilon_at_clients((Steps(1.0, 1.0, 1),), 2, 1.0, in_one_sum=True)


@pytest.mark.parametrize("noise", [0.615894804756718, 1.0, 30.0])  # the mixture has no end of the first at 10
@pytest.mark.parametrize("clients", [2, 10])
def test_one_release_in_which_everybody_is_summed_is_one_gaussian_however_little_noise(noise, clients):
    found = epsilon_at_clients((Steps(noise, 1.0, 1),), clients, DELTA, in_one_sum=True)
    spread = clients / noise
    assert gaussian_delta(spread, found) <= DELTA < gaussian_delta(spread, found - 0.03)
