"""What public people's rows look like: by hand, without bias, and nothing where nobody can be asked."""

import math

import numpy as np
import pytest

from fedrec.data.histories import Histories
from fedrec.model.pair_profile import pair_buckets
from fedrec.model.pairs import PublicPairs, no_pairs

ITEMS = 4
FIRST = np.array([0, 0, 1, 2], np.int32)
THEN = np.array([1, 2, 2, 3], np.int32)
COUNTS = np.array([3, 0, 0.5, 3], np.float32)
PAIRS = PublicPairs(ITEMS, FIRST, THEN, counts=COUNTS, spec=no_pairs(ITEMS).spec)


def test_buckets_are_measured_as_by_hand():
    """Rows over 0-1, 0-2, 1-2 and 2-3, in a window of one: (1, 0, 0, 0) and (.71, 0, .71, 0)."""
    half = 1 / math.sqrt(2)
    others = Histories.from_lists([[0, 1], [0, 1, 2]])
    suggested, rare, often = pair_buckets(PAIRS, others, window=1)
    assert suggested == (1, 0.0, 0.0)
    assert rare.pairs == 1
    assert rare.mean == pytest.approx(half / 2)
    assert rare.rms == pytest.approx(half / 2)  # seen by one of two: no product with another, so the mean bounds it
    assert often.pairs == 2
    assert often.mean == pytest.approx((1 + half) / 2 / 2)
    assert often.rms == pytest.approx(math.sqrt(1 * half / 2))


def test_the_mean_square_is_without_bias():
    """Many draws of a few people: the mean of the estimates is the mean square of the expected entries."""
    rng = np.random.default_rng(0)
    chances = np.array([0.5, 0.0, 0.0, 0.2])  # of 0-1 and of 2-3; who has neither counts nothing
    kinds, squares = ([0, 1], [2, 3], [3, 0]), []
    for _ in range(400):
        drawn = rng.choice(3, size=6, p=[0.5, 0.2, 0.3])
        often = pair_buckets(PAIRS, Histories.from_lists([kinds[kind] for kind in drawn]), window=1)[-1]
        squares.append(often.rms**2)
    expected = (chances**2).sum() / 2
    assert np.mean(squares) == pytest.approx(expected, rel=0.12)
    naive = expected + (chances * (1 - chances)).sum() / 2 / 6
    assert np.mean(squares) < 0.9 * naive


@pytest.mark.parametrize("people", [[], [[0, 1]]])
def test_nobody_to_ask_gives_no_profile(people):
    assert pair_buckets(PAIRS, Histories.from_lists(people), window=3) == ()


def test_no_pairs_give_no_profile():
    assert pair_buckets(no_pairs(ITEMS), Histories.from_lists([[0, 1], [1, 2]]), window=3) == ()
