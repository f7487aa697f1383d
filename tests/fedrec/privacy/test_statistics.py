"""Counts leave a client once, each person's share bounded, with noise that covers any one of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import PrivacyError
from fedrec.privacy.statistics import Row, bounded_sum

SIZE = 12


def row(values: list[float]) -> Row:
    """The sparse row of a vector whose first numbers are these."""
    return np.arange(len(values)), np.array(values, dtype=np.float64)


people = st.lists(st.lists(st.floats(width=64), max_size=SIZE).map(row), max_size=6)


@given(others=people, person=st.lists(st.floats(width=64), max_size=SIZE).map(row), place=st.integers(0, 6))
def test_one_person_moves_the_sum_by_at_most_one_and_nobody_elses_share(others, person, place):
    """Whatever a person's numbers are: NaN, infinite, negative, huge or tiny."""
    joined = [*others[:place], person, *others[place:]]
    difference = bounded_sum(joined, size=SIZE) - bounded_sum(others, size=SIZE)
    assert np.linalg.norm(difference) <= 1
    assert (difference == bounded_sum([person], size=SIZE)).all()


def test_the_bound_is_reached_so_that_less_noise_would_not_do():
    assert np.linalg.norm(bounded_sum([row([0.6, 0.8])], size=SIZE)) == pytest.approx(1.0, abs=2e-9)


def test_a_longer_row_is_shortened_and_keeps_its_direction():
    assert bounded_sum([row([30.0, -40.0])], size=2) == pytest.approx(np.array([0.6, -0.8]), abs=2e-9)
    assert bounded_sum([row([1e300, 1e300])], size=2) == pytest.approx(np.full(2, math.sqrt(0.5)), abs=2e-9)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_counts_as_zeros(broken):
    assert bounded_sum([row([0.5, 0.25]), row([0.125, broken])], size=2).tolist() == [0.5, 0.25]


def test_rows_go_to_their_places():
    sparse = (np.array([1, 4]), np.array([0.5, 0.25]))
    assert bounded_sum([sparse, sparse], size=5).tolist() == [0, 1.0, 0, 0, 0.5]


def test_nobody_sums_to_zeros():
    assert bounded_sum([], size=3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("places", [[0, 0], [1, 0], [0, SIZE], [-1, 0]])
def test_places_that_would_count_twice_or_nowhere_are_refused(places):
    with pytest.raises(PrivacyError, match=f"expected ascending places below {SIZE}, and one value for each"):
        bounded_sum([(np.array(places), np.array([0.5, 0.5]))], size=SIZE)


def test_another_number_of_values_than_places_is_refused():
    with pytest.raises(PrivacyError, match="a person's statistics: expected ascending places"):
        bounded_sum([(np.array([0, 1]), np.array([0.5]))], size=SIZE)
