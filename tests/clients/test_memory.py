import math
from dataclasses import replace

import numpy as np
import pytest

from clients.memory import LocalMemory, MemorySpec
from fedrec.data.histories import Histories
from fedrec.model.popularity import DAY_S
from tests.tiny_ranker import ITEMS, histories

SPEC = MemorySpec(
    weight=2.0,
    sharpness=30.0,
    window=2,
    recent=2,
    decay=0.5,
    shrinkage=0.5,
    repeat_weight=0.0,
    repeat_decay=0.5,
    basket_weight=0.0,
    popular_weight=0.0,
    popular_half_life_days=None,
    popular_shrinkage=0.0,
)
ALL_PARTS = replace(SPEC, repeat_weight=3.0, basket_weight=1.5, popular_weight=0.7, popular_shrinkage=2.0)
PEOPLE = Histories.from_lists([[0, 1, 2], [0, 2], [3]])
# Two visits each; of the four items of the second visits, 0 and 1 had been taken before.
VISITORS = Histories.from_lists([[0, 1, 0, 2], [1, 1, 3]], times=[[5, 5, 9, 9], [5, 9, 9]])
HALF = 0.5  # of what they take on a later visit


def _scores(history: list[int], **changes) -> np.ndarray:
    memory = LocalMemory.of(PEOPLE, replace(SPEC, **changes), items=5)
    return memory.scores(np.array(history, np.int64), np.arange(len(history)))


def _part(name: str, history: list[int], times: list[int], people: Histories = VISITORS, **changes) -> np.ndarray:
    memory = LocalMemory.of(people, replace(SPEC, **changes), items=5)
    return memory.parts(np.array(history, np.int64), np.array(times, np.int64))[name]


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


def test_parts_sum_to_the_scores_and_only_the_basket_takes_away():
    people = histories(9, 30, 2, 14, 1, 7)
    memory = LocalMemory.of(people, ALL_PARTS, items=ITEMS, prior=np.full(ITEMS, 1 / ITEMS))
    for person in range(len(people)):
        scores = memory.scores(people.of(person), people.times(person))
        parts = memory.parts(people.of(person), people.times(person))
        assert scores.shape == (ITEMS,)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores, sum(parts.values()), rtol=1e-5, atol=1e-6)
        assert list(parts) == ["popular", "transitions", "repeats", "in_basket"]
        assert all((values >= 0).all() for name, values in parts.items() if name != "in_basket")
        assert (parts["in_basket"] <= 0).all()


@pytest.mark.parametrize("history", [[], [4], [3, 4]])
def test_what_the_merchant_has_not_seen_adds_nothing(history):
    assert not _scores(history).any()


def test_merchant_without_people_has_an_empty_memory():
    memory = LocalMemory.of(Histories.from_lists([]), replace(ALL_PARTS, basket_weight=0.0), items=5)
    assert not memory.scores(np.array([0, 1]), np.array([0, 1])).any()


def test_scoring_a_person_leaves_the_memory_as_it_was():
    memory = LocalMemory.of(VISITORS, ALL_PARTS, items=5)
    first = memory.scores(np.array([0, 1]), np.array([0, 1]))
    memory.parts(np.array([0, 1]), np.array([0, 1]))["popular"][:] = 9.0
    assert np.array_equal(first, memory.scores(np.array([0, 1]), np.array([0, 1])))


def test_own_purchases_by_hand():
    """0 was taken on the latest visit and two before it, 1 on the one in between: 1 + 1/4 and 1/2."""
    repeats = _part("repeats", [0, 1, 0], [1, 2, 3], repeat_weight=8.0)
    expected = [8 * HALF * math.log1p(1.25), 8 * HALF * math.log1p(0.5), 0, 0, 0]
    assert repeats == pytest.approx(expected, rel=1e-6)


def test_an_item_counts_once_a_visit():
    once = _part("repeats", [0, 1], [5, 5], repeat_weight=8.0)
    assert np.array_equal(once, _part("repeats", [0, 1, 0], [5, 5, 5], repeat_weight=8.0))
    assert once[0] == pytest.approx(8 * HALF * math.log(2), rel=1e-6)


def test_of_two_items_taken_as_often_the_later_one_is_preferred():
    repeats = _part("repeats", [0, 1, 1, 0, 2, 3], [1, 2, 3, 4, 4, 5], repeat_weight=8.0)
    assert repeats[3] > repeats[2] > 0
    assert _part("repeats", [2, 3], [1, 2], repeat_weight=8.0, repeat_decay=1.0)[2] == pytest.approx(
        8 * HALF * math.log(2), rel=1e-6
    )


def test_repeats_weigh_by_how_often_this_merchants_people_buy_again():
    never = Histories.from_lists([[0, 1], [2], [], [2, 3]])
    always = Histories.from_lists([[1], [0, 0, 0], []])
    assert LocalMemory.of(VISITORS, SPEC, items=5).again == HALF
    assert LocalMemory.of(never, SPEC, items=5).again == 0.0
    assert LocalMemory.of(always, SPEC, items=5).again == 1.0
    assert not _part("repeats", [0, 1], [1, 2], never, repeat_weight=8.0).any()


def test_what_the_latest_visit_holds_is_taken_back():
    in_basket = _part("in_basket", [0, 2, 1, 2, 2], [1, 1, 2, 2, 2], basket_weight=1.5)
    assert in_basket.tolist() == [0.0, -1.5, -1.5, 0.0, 0.0]


def test_popularity_by_hand():
    """Seven purchases, the first item twice: it sells 10/7 of the average of five items."""
    popular = _part("popular", [], [], popular_weight=2.0)
    assert popular == pytest.approx([2 * math.log1p(5 * n / 7) for n in (2, 3, 1, 1, 0)], rel=1e-6)


def test_a_half_life_makes_old_sales_count_less():
    people = Histories.from_lists([[0, 1], [2]], times=[[0, 10 * DAY_S], [20 * DAY_S]])
    popular = _part("popular", [], [], people, popular_weight=1.0, popular_half_life_days=10.0)
    total = 0.25 + 0.5 + 1
    assert popular == pytest.approx([math.log1p(5 * n / total) for n in (0.25, 0.5, 1, 0, 0)], rel=1e-6)


def test_popularity_shrinks_towards_the_prior():
    """Seven own purchases and four pseudo-counts: item 4, never sold here, has all of the prior."""
    spec = replace(SPEC, popular_weight=1.0, popular_shrinkage=4.0)
    alone = LocalMemory.of(VISITORS, spec, items=5).popular
    informed = LocalMemory.of(VISITORS, spec, items=5, prior=np.eye(5)[4]).popular
    assert alone == pytest.approx([math.log1p(5 * n / 11) for n in (2, 3, 1, 1, 0)], rel=1e-6)
    assert informed == pytest.approx([math.log1p(5 * n / 11) for n in (2, 3, 1, 1, 4)], rel=1e-6)
