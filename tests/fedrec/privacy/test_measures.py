"""A metric leaves a client only with noise that covers any one person, and never tells how many people there are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from fedrec.errors import PrivacyError
from fedrec.privacy.measures import bounded_sum, metric_noise_std, release_metrics
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import SecureRandom, SeededRandom

RELEASES = {"metric_releases": 3, "metric_noise_multiplier": 10.0}


def is_noise_of(sample: np.ndarray, scale: float) -> bool:
    """Chi-square on the spread and Kolmogorov-Smirnov on the shape, each at a false alarm of 1e-6."""
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], len(sample))
    return low < ((sample / scale) ** 2).sum() < high and stats.kstest(sample / scale, "norm").pvalue > 1e-6


class CountedRandom(SecureRandom):
    """Counts how often noise is drawn, and how much."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def normal(self, size: int) -> np.ndarray:
        self.sizes.append(size)
        return super().normal(size)


@pytest.fixture
def plan(make_plan) -> PrivacyPlan:
    return make_plan(**RELEASES)


@pytest.fixture
def open_plan(make_open_plan) -> PrivacyPlan:
    return make_open_plan(metric_releases=3)


@pytest.mark.parametrize("metrics", [1, 2])
def test_released_noise_has_exactly_the_planned_scale(plan, metrics):
    """80 people expected, sigma 10: each number has noise of deviation 10·sqrt(k)/80."""
    nobody = np.empty((0, metrics))
    sample = np.concatenate([release_metrics(plan, SecureRandom(), values=nobody) for _ in range(6000)])
    scale = 10.0 * math.sqrt(metrics) / 80
    assert metric_noise_std(plan, metrics=metrics) == pytest.approx(scale, rel=1e-15)
    assert is_noise_of(sample, scale)
    assert not is_noise_of(sample * 2 / 3, scale)
    assert not is_noise_of(sample * 3 / 2, scale)


def test_noise_is_drawn_once_and_anew_for_every_metric(plan):
    random = CountedRandom()
    first, second = (release_metrics(plan, random, values=np.ones((5, 2))) for _ in range(2))
    assert random.sizes == [2, 2]
    assert len({*first, *second}) == 4


def test_noise_of_the_metrics_of_one_release_is_independent(plan):
    draws = np.array([release_metrics(plan, SecureRandom(), values=np.empty((0, 2))) for _ in range(4000)])
    assert abs(np.corrcoef(draws.T)[0, 1]) < 5 / math.sqrt(4000)


def test_the_divisor_is_public_and_not_the_number_of_people(open_plan):
    for people in (1, 7, 300):
        released = release_metrics(open_plan, SeededRandom(0), values=np.full((people, 2), 0.5))
        assert released.tolist() == pytest.approx([people * 0.5 / 80] * 2, rel=1e-15)


@given(
    others=arrays(np.float64, st.tuples(st.integers(0, 6), st.just(2)), elements=st.floats(0, 1)),
    person=arrays(np.float64, (1, 2), elements=st.floats(width=64)),
    place=st.integers(0, 6),
)
def test_one_person_moves_the_sums_by_at_most_the_root_of_the_number_of_metrics(others, person, place):
    """Whatever a person's numbers are: NaN, infinite, negative or huge."""
    with_person = np.insert(others, min(place, len(others)), person, axis=0)
    assert np.linalg.norm(bounded_sum(with_person) - bounded_sum(others)) <= math.sqrt(2) * (1 + 1e-12)


def test_the_bound_is_reached_so_that_less_noise_would_not_do():
    assert np.linalg.norm(bounded_sum(np.ones((3, 2))) - bounded_sum(np.ones((2, 2)))) == math.sqrt(2)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_person_whose_numbers_are_not_finite_counts_as_zeros(broken):
    assert bounded_sum(np.array([[0.25, 0.5], [1.0, broken]])).tolist() == [0.25, 0.5]


def test_numbers_outside_the_unit_interval_are_cut():
    assert bounded_sum(np.array([[7.0, -3.0], [0.25, 0.5]])).tolist() == [1.25, 0.5]


def test_nobody_sums_to_zero():
    assert bounded_sum(np.empty((0, 2))).tolist() == [0.0, 0.0]


def test_a_source_that_does_not_swear_it_is_private_is_refused(plan, open_plan):
    class Vague(SecureRandom):
        is_private = 1  # truthy, yet not the word

    for random in (SeededRandom(0), Vague()):
        with pytest.raises(PrivacyError, match=f"{type(random).__name__} can be predicted: a private plan expects"):
            release_metrics(plan, random, values=np.ones((2, 2)))
    release_metrics(open_plan, SeededRandom(0), values=np.ones((2, 2)))


@pytest.mark.parametrize("shape", [(3,), (3, 0), (3, 2, 1)])
def test_values_of_another_shape_are_refused(open_plan, shape):
    with pytest.raises(PrivacyError, match=r"metrics of shape .*: expected \(people, metrics\), at least one metric"):
        release_metrics(open_plan, SeededRandom(0), values=np.ones(shape))


def test_a_plan_without_releases_gives_none(make_plan, make_open_plan):
    for plan in (make_plan(), make_open_plan()):
        with pytest.raises(PrivacyError, match="metric_noise_multiplier=None: this plan releases none"):
            release_metrics(plan, SecureRandom(), values=np.ones((2, 2)))


def test_without_privacy_the_release_is_the_plain_sum_over_the_expected_people(open_plan):
    values = np.array([[0.5, 1.0], [0.25, 0.0]])
    assert release_metrics(open_plan, SeededRandom(0), values=values).tolist() == [0.75 / 80, 1 / 80]
    assert metric_noise_std(open_plan, metrics=2) == 0
