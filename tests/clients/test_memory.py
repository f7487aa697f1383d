import math
from dataclasses import replace

import numpy as np
import pytest

from clients.memory import LocalMemory, MemorySpec
from fedrec.data.histories import Histories
from tests.tiny_ranker import ITEMS, histories

SPEC = MemorySpec(weight=2.0, sharpness=30.0, window=2, recent=2, decay=0.5, shrinkage=0.5, repeat_weight=0.0)
PEOPLE = Histories.from_lists([[0, 1, 2], [0, 2], [3]])


def _scores(history: list[int], **changes) -> np.ndarray:
    return LocalMemory.of(PEOPLE, replace(SPEC, **changes), items=5).scores(np.array(history, np.int64))


def test_scores_by_hand():
    """After 0: 1 follows with weight 1, 2 with 1/2 + 1, of 5/2 + 1/2: a third and a half."""
    expected = [0, 2 * math.log1p(10), 2 * math.log1p(15), 0, 0]
    assert _scores([0]) == pytest.approx(expected, rel=1e-6)


def test_two_recent_items_by_hand():
    """Last is 1, before it 0: weights 2/3 and 1/3; 1 is followed by 2 with 1 of 1.5."""
    expected = [0, 2 * math.log1p(30 / 9), 2 * math.log1p(30 * (1 / 6 + 4 / 9)), 0, 0]
    assert _scores([4, 3, 0, 1]) == pytest.approx(expected, rel=1e-6)


def test_older_events_are_not_looked_up():
    assert np.array_equal(_scores([0, 3, 4]), np.zeros(5, np.float32))
    assert _scores([0, 3, 4], recent=3).any()


def test_gap_beyond_the_window_is_no_transition():
    assert _scores([0], window=1)[2] == pytest.approx(2 * math.log1p(30 * 1 / 2.5), rel=1e-6)


def test_memory_is_never_negative_and_finite():
    people = histories(9, 30, 2, 14, 1, 7)
    memory = LocalMemory.of(people, SPEC, items=ITEMS)
    for person in range(len(people)):
        scores = memory.scores(people.of(person))
        assert scores.shape == (ITEMS,)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        assert (scores >= 0).all()


def test_weight_zero_switches_it_off():
    assert not _scores([0, 1], weight=0.0).any()
    assert _scores([0, 1]).any()


def test_it_is_a_sum_on_top_so_the_weight_scales_it():
    assert _scores([0, 1], weight=4.0) == pytest.approx(2 * _scores([0, 1]), rel=1e-6)


@pytest.mark.parametrize("history", [[], [4], [3, 4]])
def test_what_the_merchant_has_not_seen_adds_nothing(history):
    assert not _scores(history).any()


def test_merchant_without_people_has_an_empty_memory():
    memory = LocalMemory.of(Histories.from_lists([]), SPEC, items=5)
    assert not memory.scores(np.array([0, 1])).any()


def test_own_purchases_count_by_how_often_and_add_to_the_transitions():
    spec = replace(SPEC, repeat_weight=3.0)
    memory = LocalMemory.of(Histories.from_lists([[0, 1, 2], [1, 2]]), spec, items=4)
    history = np.array([2, 0, 2])
    parts = memory.parts(history)
    np.testing.assert_allclose(parts["repeats"], 3.0 * np.log([2.0, 1.0, 3.0, 1.0]))
    np.testing.assert_allclose(memory.scores(history), parts["transitions"] + parts["repeats"], rtol=1e-6)
