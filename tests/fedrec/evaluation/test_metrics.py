import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedrec.evaluation.metrics import METRICS, ranking_metrics, target_ranks, top_items


def test_ranks_of_a_worked_example():
    scores = np.array([0.1, 0.9, 0.5, 0.7], dtype=np.float32)
    assert target_ranks(scores, np.array([1, 2, 0])).tolist() == [1.0, 3.0, 4.0]


def test_a_tie_counts_half_of_the_others():
    scores = np.array([1.0, 0.5, 0.5, 0.5, 0.2], dtype=np.float32)
    assert target_ranks(scores, np.array([2])).tolist() == [3.0]  # behind one, in the middle of three


def test_equal_scores_put_a_target_in_the_middle_and_not_on_top():
    assert target_ranks(np.zeros(101, dtype=np.float32), np.array([7])).tolist() == [51.0]


def test_a_masked_item_comes_last():
    assert target_ranks(np.array([-np.inf, -5.0, 3.0]), np.array([0])).tolist() == [3.0]


def test_one_target_at_rank_three():
    values = ranking_metrics(np.array([3.0]))
    assert values["hr@10"] == values["recall@10"] == 1.0
    assert values["ndcg@10"] == pytest.approx(1 / math.log2(4))
    assert values["mrr@10"] == pytest.approx(1 / 3)


def test_one_target_between_the_cutoffs_counts_only_at_the_longer_one():
    values = ranking_metrics(np.array([10.5]))
    assert [values[f"{name}@10"] for name in ("hr", "ndcg", "mrr", "recall")] == [0, 0, 0, 0]
    assert values["hr@20"] == 1.0
    assert values["ndcg@20"] == pytest.approx(1 / math.log2(11.5))


def test_a_basket_of_three_with_two_found():
    values = ranking_metrics(np.array([1.0, 4.0, 30.0]))
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert values["recall@10"] == pytest.approx(2 / 3)
    assert values["ndcg@10"] == pytest.approx((1 + 1 / math.log2(5)) / ideal)
    assert values["mrr@10"] == 1.0


def test_recall_of_a_large_basket_is_over_the_length_of_the_list():
    assert ranking_metrics(np.arange(1.0, 41.0))["recall@10"] == 1.0
    assert ranking_metrics(np.arange(1.0, 41.0))["ndcg@10"] == pytest.approx(1.0)


def test_a_crowd_of_targets_tied_inside_the_list_is_not_worth_more_than_the_ideal_list():
    scores = np.concatenate([np.ones(19), np.zeros(30)])
    ranks = target_ranks(scores, np.arange(19))
    assert (ranks == 10).all()
    values = ranking_metrics(ranks)
    assert values["recall@10"] == values["ndcg@10"] == 1.0


def test_metrics_are_named_once():
    assert set(ranking_metrics(np.array([1.0]))) == set(METRICS)


SCORES = hnp.arrays(np.float32, 40, elements=st.integers(-6, 6).map(float))
TARGETS = st.sets(st.integers(0, 39), min_size=1, max_size=30).map(lambda found: np.array(sorted(found)))


@settings(deadline=None, max_examples=80)
@given(SCORES, TARGETS)
def test_metrics_stay_between_zero_and_one_whatever_the_ties(scores, targets):
    values = ranking_metrics(target_ranks(scores, targets))
    assert all(0.0 <= value <= 1.0 for value in values.values())


@settings(deadline=None, max_examples=50)
@given(SCORES, TARGETS)
def test_a_rising_transformation_of_the_scores_changes_nothing(scores, targets):
    transformed = np.exp(scores.astype(np.float64) / 3) - 7
    assert (target_ranks(scores, targets) == target_ranks(transformed, targets)).all()


@settings(deadline=None, max_examples=50)
@given(SCORES, TARGETS, st.permutations(range(40)))
def test_renaming_the_items_changes_nothing(scores, targets, order):
    renamed = np.empty_like(scores)
    renamed[order] = scores
    assert (target_ranks(renamed, np.array(order)[targets]) == target_ranks(scores, targets)).all()


@settings(deadline=None, max_examples=50)
@given(SCORES, st.integers(0, 39))
def test_a_higher_score_never_hurts_its_item(scores, target):
    raised = scores.copy()
    raised[target] += 1
    before = ranking_metrics(target_ranks(scores, np.array([target])))
    after = ranking_metrics(target_ranks(raised, np.array([target])))
    assert all(after[name] >= before[name] for name in METRICS)


def test_ties_make_half_ranks_the_expected_rank_of_a_random_order():
    rng = np.random.default_rng(0)
    scores = np.array([2.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    drawn = [target_ranks(scores + rng.uniform(0, 1e-3, 6), np.array([2]))[0] for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(target_ranks(scores, np.array([2]))[0], abs=0.08)


def test_top_items_are_the_best_in_order():
    scores = np.array([[0.1, 0.9, 0.5, 0.7], [4.0, 3.0, 2.0, 1.0]])
    assert top_items(scores, 2).tolist() == [[1, 3], [0, 1]]


def test_a_catalogue_shorter_than_the_list_is_shown_whole():
    assert top_items(np.array([[0.1, 0.9, 0.5]]), 10).tolist() == [[1, 2, 0]]
