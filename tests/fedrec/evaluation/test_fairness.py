"""Who gains and who loses, by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedrec.evaluation.fairness import gains, gains_by_size, worst_tenth

NAN = float("nan")


def test_the_worst_tenth_is_of_one_value_at_least_and_rounds_up():
    assert worst_tenth(np.array([3.0, -1.0, 2.0])) == -1.0
    assert worst_tenth(np.arange(11.0)[::-1]) == 0.5  # two of eleven


def test_gains_by_hand():
    found = gains(np.array([0.03, NAN, -0.01, 0.0, 0.08]))
    assert found == {
        "merchants": 4,
        "gaining": 2,
        "losing": 1,
        "mean": pytest.approx(0.025),
        "median": pytest.approx(0.015),
        "worst_decile": -0.01,
    }


def test_thirds_by_size_by_hand():
    """Small merchants gain, the middling stay, the large lose; one of the small could not be measured."""
    sizes = np.array([50, 5, 20, 6, 60, 21, 1])
    differences = np.array([-0.2, 0.1, 0.0, 0.3, -0.4, 0.02, NAN])
    small, middle, large = gains_by_size(differences, sizes)
    assert (small["people_min"], small["people_max"], small["merchants"]) == (5, 6, 2)
    assert (small["mean"], small["losing"]) == (pytest.approx(0.2), 0)
    assert (middle["people_min"], middle["people_max"], middle["mean"]) == (20, 21, pytest.approx(0.01))
    assert (large["people_min"], large["people_max"], large["losing"]) == (50, 60, 2)
    assert large["worst_decile"] == -0.4


def test_merchants_of_one_size_are_one_group():
    (only,) = gains_by_size(np.array([0.1, -0.1, 0.3]), np.array([7, 7, 7]))
    assert (only["people_min"], only["people_max"], only["merchants"]) == (7, 7, 3)


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1, 1)), st.randoms(use_true_random=False))
def test_groups_hold_every_merchant_once_and_do_not_overlap(differences, random):
    sizes = np.array([random.randint(1, 12) for _ in differences])
    groups = gains_by_size(differences, sizes)
    assert sum(group["merchants"] for group in groups) == len(differences)
    ends = [end for group in groups for end in (group["people_min"], group["people_max"])]
    assert ends == sorted(ends)
    assert all(one["people_max"] < other["people_min"] for one, other in pairwise(groups))
    whole = gains(differences)
    assert sum(group["losing"] for group in groups) == whole["losing"]
    assert min(group["worst_decile"] for group in groups) <= whole["mean"] + 1e-9
