"""What a person adds to the statistics: their own counts, over public pairs alone, never longer than anybody else's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.data.histories import Histories
from fedrec.model.counting import person_statistics
from fedrec.model.pairs import PublicPairs, no_pairs
from fedrec.model.statistics import Counting, StatisticsSpec
from fedrec.schema import parameters_of

ITEMS = 5
FIRST = np.array([0, 0, 1, 2, 3], np.int32)
THEN = np.array([1, 2, 2, 0, 4], np.int32)
PAIRS = PublicPairs(ITEMS, FIRST, THEN, counts=np.zeros(5, np.float32), spec=no_pairs(ITEMS).spec)
BOTH = Counting(PAIRS, StatisticsSpec(window=3, popularity_share=0.36))
PAIRS_ALONE = Counting(PAIRS, StatisticsSpec(window=3, popularity_share=0.0))
POPULARITY_ALONE = Counting(PAIRS, StatisticsSpec(window=3, popularity_share=1.0))

histories = st.lists(st.integers(0, ITEMS - 1), max_size=60)


def dense(history: list[int], counting: Counting = BOTH, *, among: tuple[list[int], ...] = ()) -> np.ndarray:
    """The person's whole vector; ``among`` are others at the same client, who come before."""
    rows = list(person_statistics(Histories.from_lists([*among, history]), counting))
    places, values = rows[-1]
    vector = np.zeros(parameters_of(counting.schema))
    vector[places] = values
    return vector


def test_a_history_is_counted_as_by_hand():
    """0 1 2 0: pairs 0-1, 1-2, 2-0 at one, 0-2 and 1-0 at two, 0-0 at three; 1-0 and 0-0 are not public."""
    counts = np.array([1, 1 / 2, 1, 1, 0])
    popularity = np.array([2, 1, 1, 0, 0])
    expected = [0.6 * popularity / math.sqrt(6), 0.8 * counts / math.sqrt(3.25)]
    assert dense([0, 1, 2, 0]) == pytest.approx(np.concatenate(expected), rel=1e-12)


def test_a_block_without_a_share_is_left_out():
    assert [block.name for block in PAIRS_ALONE.schema] == ["pairs"]
    assert [block.name for block in POPULARITY_ALONE.schema] == ["popularity"]
    assert dense([0, 1, 2, 0], PAIRS_ALONE) == pytest.approx(np.array([2, 1, 2, 2, 0]) / math.sqrt(13), rel=1e-12)
    assert dense([3, 3, 4], POPULARITY_ALONE) == pytest.approx(np.array([0, 0, 0, 2, 1]) / math.sqrt(5), rel=1e-12)


@pytest.mark.parametrize("history", [[], [3], [4, 3], [1, 1, 1]])
def test_who_has_no_public_pair_counts_for_none(history):
    assert not dense(history, PAIRS_ALONE).any()


@given(history=histories)
def test_everybody_who_counts_is_as_long_as_anybody_else(history):
    """Each block is there with its whole share, or not at all."""
    vector = dense(history)
    popularity, pairs = np.linalg.norm(vector[:ITEMS]), np.linalg.norm(vector[ITEMS:])
    assert popularity == pytest.approx(0.6 if history else 0.0, rel=1e-12)
    assert pairs == pytest.approx(0.8 if vector[ITEMS:].any() else 0.0, rel=1e-12)
    assert (vector >= 0).all()


@pytest.mark.parametrize("times", [1, 100, 5000])
def test_whoever_buys_more_counts_no_more(times):
    assert np.linalg.norm(dense([0, 1] * times)) == pytest.approx(1.0, rel=1e-12)


@given(history=histories, others=st.lists(histories, max_size=4))
def test_a_row_depends_on_nobody_else(history, others):
    assert (dense(history) == dense(history, among=tuple(others))).all()


@given(history=histories)
def test_rows_are_sparse_ascending_and_within_the_vector(history):
    (places, values) = next(person_statistics(Histories.from_lists([history]), BOTH))
    assert places.shape == values.shape
    assert (np.diff(places) > 0).all()
    assert ((places >= 0) & (places < parameters_of(BOTH.schema))).all()
