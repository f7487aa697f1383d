import math

import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps, composed_epsilon
from fedrec.privacy.filter import filter_epsilon, renyi_cost, renyi_order
from fedrec.privacy.renyi import ORDERS, renyi_bound

DELTA = 1e-5
HISTORIES = [
    (Steps(1.13, 0.25, 30),),
    (Steps(3.3, 1.0, 30),),
    (Steps(1.0, 0.01, 1000),),
    (Steps(2.0, 0.1, 50), Steps(1.5, 0.25, 10), Steps(20.0, 1.0, 5)),
    (Steps(1.6, 0.25, 30, 30, 90),),
]


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("order", [2, 4, 9, 40])
def test_the_filter_never_says_less_than_the_distribution_of_the_same_steps(history, order):
    assert filter_epsilon(history, DELTA, order=order) >= composed_epsilon(history, DELTA)


def test_without_sampling_the_cost_is_order_over_twice_the_variance():
    """Mironov 2017, Table II: a Gaussian of noise sigma has Renyi divergence alpha / (2 sigma^2)."""
    for order in (2, 7, 100):
        assert renyi_cost((Steps(3.0, 1.0, 4),), order) == pytest.approx(4 * order / (2 * 3.0**2), rel=1e-12)
    rho = 4 / (2 * 3.0**2)
    expected = 5 * rho + math.log(4 / 5) - math.log(DELTA * 5) / 4
    assert filter_epsilon((Steps(3.0, 1.0, 4),), DELTA, order=5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(0.6, 0.05, 100), (1.0, 0.01, 1000), (1.6, 0.25, 30), (3.3, 1.0, 5)]
)
def test_the_renyi_bound_equals_the_library_s_at_the_same_orders(noise, rate, steps):
    accountant = RdpAccountant(list(ORDERS))
    accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise)), steps)
    assert renyi_bound((Steps(noise, rate, steps),), DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    noise=st.floats(0.3, 20), rate=st.floats(0.01, 1), steps=st.integers(1, 500), order=st.sampled_from([2, 5, 20, 200])
)
def test_more_steps_more_sampling_or_less_noise_never_cost_less(noise, rate, steps, order):
    def cost(*spending: float) -> float:
        return filter_epsilon((Steps(*spending),), DELTA, order=order)

    base = cost(noise, rate, steps)
    assert cost(noise, rate, steps + 1) >= base
    assert cost(noise / 1.1, rate, steps) >= base * (1 - 1e-9)
    assert cost(noise, min(1.0, 1.1 * rate), steps) >= base * (1 - 1e-9)


@pytest.mark.parametrize(("epsilon", "delta"), [(8.0, 1e-5), (3.0, 1e-6), (1.0, 1e-6), (0.1, 1e-6)])
def test_the_order_lets_the_most_gaussian_steps_through(epsilon, delta):
    def allowed(order: int) -> float:
        """rho = steps / (2 sigma^2) that costs exactly epsilon at this order."""
        return (epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)) / order

    best = renyi_order(epsilon, delta)
    assert best >= 2
    assert allowed(best) >= max(allowed(order) for order in (2, 3, best + 1, 2 * best, max(2, best - 1), 500))
    noise = 1 / math.sqrt(2 * allowed(best))
    assert filter_epsilon((Steps(noise, 1.0, 1),), delta, order=best) == pytest.approx(epsilon, rel=1e-9)


def test_the_order_depends_on_the_policy_alone():
    """Choosing it after the fact, to fit what was spent, is what the theorem forbids."""
    assert renyi_order(8.0, 1e-5) == 4
    assert renyi_order(3.0, 1e-6) == 9
    spent = [filter_epsilon(history, 1e-5, order=renyi_order(8.0, 1e-5)) for history in HISTORIES]
    assert all(spent > renyi_bound(history, 1e-5) - 1e-12 for spent, history in zip(spent, HISTORIES, strict=True))


def test_nothing_costs_nothing_and_no_noise_costs_everything():
    assert filter_epsilon((), DELTA, order=4) == 0.0
    assert filter_epsilon((Steps(1.0, 0.1, 0),), DELTA, order=4) == 0.0
    assert filter_epsilon((Steps(1.0, 0.1, 5), Steps(0.0, 0.1, 1)), DELTA, order=4) == math.inf


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_a_policy_without_a_finite_epsilon_has_no_order(epsilon):
    with pytest.raises(PrivacyError, match=r"max_epsilon=.*: expected a finite number > 0"):
        renyi_order(epsilon, DELTA)


def test_an_epsilon_too_small_for_any_order_is_refused():
    with pytest.raises(PrivacyError, match=r"max_epsilon=1e-05, max_delta=1e-05: too small for adaptive parameters"):
        renyi_order(1e-5, DELTA)


def test_an_order_or_delta_out_of_range_is_refused():
    with pytest.raises(PrivacyError, match=r"order=1: expected a whole number >= 2"):
        filter_epsilon(HISTORIES[0], DELTA, order=1)
    with pytest.raises(PrivacyError, match=r"order=2\.5: expected a whole number >= 2"):
        filter_epsilon(HISTORIES[0], DELTA, order=2.5)
    with pytest.raises(PrivacyError, match=r"delta=0\.0: expected a number in \(0, 1\)"):
        filter_epsilon(HISTORIES[0], 0.0, order=4)
    with pytest.raises(PrivacyError, match=r"delta=2: expected a number in \(0, 1\)"):
        renyi_order(1.0, 2)
    with pytest.raises(PrivacyError, match="steps=-5: expected a whole number >= 0"):
        filter_epsilon((Steps(1.0, 0.1, 10), Steps(1.0, 0.1, -5)), DELTA, order=4)


@pytest.mark.parametrize("order", [2, 5, 40])
def test_a_batch_that_is_always_full_costs_a_gaussian_of_twice_the_sensitivity(order):
    assert renyi_cost((Steps(2.0, 0.25, 3, 4, 5000),), order) == pytest.approx(
        3 * order * 2**2 / (2 * 2.0**2), rel=1e-9
    )


def test_a_batch_that_is_sometimes_full_mixes_both_cases():
    """Three people, cap 1, q = 1/2: the other two are not both out with probability 3/4. By hand at order 2."""
    plain = math.log(0.25 + 0.5 + 0.25 * math.exp(1 / 2.0**2))  # (1-q)^2 + 2q(1-q) + q^2 exp(1/sigma^2)
    full = 2.0 * 2 / 2.0**2
    expected = math.log(0.25 * math.exp(plain) + 0.75 * math.exp(full))
    assert renyi_cost((Steps(2.0, 0.5, 1, 1, 3),), 2) == pytest.approx(expected, rel=1e-12)
