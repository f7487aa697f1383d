"""A capped batch bounds memory; what it costs must hold at every size a client may have, not at the largest alone."""

import itertools
import math

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from scipy import stats

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import (
    ADD_OR_REMOVE,
    REPLACE_ONE,
    ZERO_OUT,
    Steps,
    calibrated_noise_multiplier,
    composed_epsilon,
    composed_rdp_epsilon,
)
from fedrec.privacy.losses import composed_loss

pytestmark = pytest.mark.usefixtures("coarse_accounting")

DELTA = 1e-5
RELATIONS = (ADD_OR_REMOVE, REPLACE_ONE, ZERO_OUT)
PLAIN = Steps(1.6, 0.25, 30)


def capped(cap: int, people: int, steps: Steps = PLAIN) -> Steps:
    return steps._replace(batch_cap=cap, max_people=people)


def library_epsilon(spending: Steps, people: int) -> float:
    """The accounting library's capped mechanism, which is for clients of exactly one size."""
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    event = dp_event.TruncatedSubsampledGaussianDpEvent(
        people, spending.sampling_rate, spending.batch_cap, spending.noise_multiplier
    )
    accountant.compose(event, spending.steps)
    return float(accountant.get_epsilon(DELTA))


def exact_delta(spending: Steps, people: int, epsilon: float, *, other: float) -> float:
    """Delta of one step at one client, integrated: everyone else contributes ``other``, the person 1."""
    noise, rate, _, cap, _ = spending
    reach = 8 * noise + cap * abs(other) + 2
    grid = np.linspace(-reach, reach, 8001)
    without, with_person = np.zeros_like(grid), np.zeros_like(grid)
    for sampled, chance in enumerate(stats.binom.pmf(np.arange(people), people - 1, rate)):
        kept, joins = min(sampled, cap), rate * min(1.0, cap / (sampled + 1))
        alone = stats.norm.pdf(grid, other * kept, noise)
        joined = stats.norm.pdf(grid, other * min(sampled, cap - 1) + 1, noise)
        without += chance * alone
        with_person += chance * ((1 - joins) * alone + joins * joined)
    gaps = [np.maximum(p - math.exp(epsilon) * q, 0) for p, q in ((with_person, without), (without, with_person))]
    return float(max(gap.sum() for gap in gaps) * (grid[1] - grid[0]))


@pytest.mark.parametrize(("cap", "people"), [(24, 60), (24, 400), (48, 120)])
def test_a_capped_batch_never_costs_less_than_the_library_says_at_any_client_size(cap, people):
    ours = composed_epsilon((capped(cap, people),), DELTA)
    sizes = sorted({*range(cap + 1, people + 1, max(1, people // 8)), min(int(1.2 * cap / 0.25), people), people})
    assert max(library_epsilon(capped(cap, people), size) for size in sizes) <= ours


def test_the_library_taken_at_the_largest_size_would_understate_a_smaller_client():
    """Why ``max_people`` is not simply handed to the library: its epsilon falls again beyond a size."""
    assert library_epsilon(capped(24, 400), 400) < 0.5 * library_epsilon(capped(24, 400), 117)


@pytest.mark.parametrize("relation", RELATIONS)
def test_epsilon_never_falls_when_more_people_are_allowed(relation):
    bounds = (10, 11, 14, 20, 30, 60, 200, 5000)
    curve = [composed_epsilon((capped(10, people),), DELTA, relation=relation) for people in bounds]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(curve))
    assert curve[0] == composed_epsilon((PLAIN,), DELTA, relation=relation) < curve[-1]


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_lower_cap_costs_more_and_a_roomy_one_nothing(relation):
    costs = [composed_epsilon((capped(cap, 80),), DELTA, relation=relation) for cap in (10, 20, 30, 60)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 1.1 * costs[-1]
    assert costs[-1] == pytest.approx(composed_epsilon((PLAIN,), DELTA, relation=relation), abs=1e-3)


def test_a_cap_that_can_never_bind_is_no_cap():
    assert composed_epsilon((capped(80, 80),), DELTA) == composed_epsilon((PLAIN,), DELTA)
    assert composed_epsilon((capped(80, 80), PLAIN), DELTA) == composed_epsilon((PLAIN, PLAIN), DELTA)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 2.0])
def test_a_step_s_delta_lies_above_the_integrated_one_at_every_size_and_direction(epsilon):
    spending = capped(4, 40, Steps(1.0, 0.25, 1))
    ours = composed_loss((spending,), 1e-3, ADD_OR_REMOVE).get_delta_for_epsilon(epsilon)
    exact = max(
        exact_delta(spending, people, epsilon, other=other) for people in (1, 4, 8, 20, 34, 40) for other in (-1, 0, 1)
    )
    assert exact <= ours
    without_the_cap = composed_loss((Steps(2.0, 0.25, 1),), 1e-3, ADD_OR_REMOVE).get_delta_for_epsilon(epsilon)
    assert without_the_cap < exact  # the integral is sharp enough to catch twice the noise


@pytest.mark.parametrize(("cap", "people"), [(24, 60), (32, 80), (48, 400), (1, 2)])
def test_the_renyi_bound_of_a_capped_batch_lies_above_the_distribution_s(cap, people):
    spending = (capped(cap, people),)
    assert composed_epsilon(spending, DELTA) <= composed_rdp_epsilon(spending, DELTA)
    assert composed_rdp_epsilon(spending, DELTA) >= composed_rdp_epsilon((PLAIN,), DELTA)


def test_capped_and_plain_steps_compose():
    both = composed_epsilon((capped(24, 60), PLAIN), DELTA)
    assert both > max(composed_epsilon((capped(24, 60),), DELTA), composed_epsilon((PLAIN,), DELTA))
    assert both < composed_epsilon((capped(24, 60)._replace(steps=60),), DELTA)


def test_calibration_pays_for_the_cap_with_noise():
    noise = calibrated_noise_multiplier(8.0, DELTA, 0.25, 4, batch_cap=20, max_people=60)
    assert noise > calibrated_noise_multiplier(8.0, DELTA, 0.25, 4)
    step = capped(20, 60, Steps(noise, 0.25, 4))
    less = step._replace(noise_multiplier=noise - 2e-4)
    assert composed_epsilon((step,), DELTA) <= 8.0 < composed_epsilon((less,), DELTA)


@pytest.mark.parametrize(
    ("cap", "people", "message"),
    [
        (10, None, "batch_cap=10, max_people=None: expected both or neither"),
        (None, 10, "batch_cap=None, max_people=10: expected both or neither"),
        (0, 10, "batch_cap=0: expected a whole number >= 1"),
        (2.0, 10, "batch_cap=2.0: expected a whole number >= 1"),
        (10, 0, "max_people=0: expected a whole number >= 1"),
        (10, True, "max_people=True: expected a whole number >= 1"),
    ],
)
def test_half_a_cap_is_refused(cap, people, message):
    with pytest.raises(PrivacyError, match=message):
        composed_epsilon((Steps(1.0, 0.25, 1, cap, people),), DELTA)
