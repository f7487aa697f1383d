import numpy as np
import pytest

from fedrec.data.histories import Histories
from fedrec.model.popularity import DAY_S, popularity_counts, popularity_shares, visits

PEOPLE = Histories.from_lists([[0, 1, 0, 0], [], [0, 2]], times=[[5, 5, 5, 9], [], [9, 9]])


def test_a_visit_is_one_person_at_one_time():
    assert visits(PEOPLE).tolist() == [0, 0, 0, 1, 2, 2]
    assert visits(Histories.from_lists([[], [0, 1], []])).tolist() == [0, 1]


def test_an_item_counts_once_a_visit():
    assert popularity_counts(PEOPLE, items=4, half_life_days=None).tolist() == [3.0, 1.0, 1.0, 0.0]


def test_a_sale_half_a_life_ago_counts_half():
    people = Histories.from_lists([[0, 1]], times=[[0, 20 * DAY_S]])
    assert popularity_counts(people, items=3, half_life_days=20.0) == pytest.approx([0.5, 1.0, 0.0])


def test_positions_are_too_close_for_age_to_matter():
    people = Histories.from_lists([[0] * 200 + [1]])
    assert popularity_counts(people, items=2, half_life_days=1.0) == pytest.approx([200, 1], rel=1e-3)


def test_shares_sum_to_one_and_nobody_gives_zeros():
    assert popularity_shares(PEOPLE, items=4, half_life_days=None) == pytest.approx([0.6, 0.2, 0.2, 0.0])
    assert np.array_equal(popularity_shares(Histories.from_lists([[]]), items=3, half_life_days=5.0), np.zeros(3))
