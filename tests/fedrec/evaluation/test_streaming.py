from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from fedrec.data.splits import Split
from fedrec.errors import RunError
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.metrics import target_ranks, top_items
from fedrec.evaluation.protocol import evaluate
from fedrec.evaluation.streaming import DotScorer, Wanted, ranks_and_best
from tests.tiny_ranker import ITEMS, adapted, histories, public_pairs

PEOPLE, WIDTH = 13, 5


def catalogue(items=37, *, seed=0):
    """Vectors of small whole numbers, so that any order of adding gives the same score, and many scores tie."""
    rng = np.random.default_rng(seed)
    vectors, states = (rng.integers(-2, 3, (rows, WIDTH)).astype(np.float32) for rows in (items, PEOPLE))
    bias = rng.integers(0, 2, items).astype(np.float32)
    added = csr_array((np.full(40, 3.0), (rng.integers(0, PEOPLE, 40), rng.integers(0, items, 40))), (PEOPLE, items))
    added.sum_duplicates()
    scores = states @ vectors.T + bias + added.toarray().astype(np.float32)
    wanted = lambda people: Wanted(torch.from_numpy(states[people]), added[people])  # noqa: E731
    return DotScorer(torch.from_numpy(vectors), torch.from_numpy(bias), wanted), scores, rng


@pytest.mark.parametrize("width", [1, 7, 36, 37, 64])
def test_ranks_and_best_items_are_those_of_the_whole_matrix(width):
    scorer, scores, rng = catalogue()
    targets = [rng.choice(37, rng.integers(0, 4), replace=False) for _ in range(PEOPLE)]
    hidden = [rng.choice(37, rng.integers(0, 5), replace=False) for _ in range(PEOPLE)]
    targets[0] = np.array([hidden[0][0]]) if len(hidden[0]) else targets[0]  # a target that is not offered
    ranks, best = ranks_and_best(
        scorer, np.arange(PEOPLE), targets=targets, hidden=hidden, shown=6, items_at_a_time=width
    )
    for row in range(PEOPLE):
        scores[row, hidden[row]] = -np.inf
        assert ranks[row].tolist() == target_ranks(scores[row], targets[row]).tolist()
    expected = np.take_along_axis(scores, top_items(scores, 6), axis=1)
    assert np.take_along_axis(scores, best, axis=1).tolist() == expected.tolist()
    assert all(len(set(row)) == 6 for row in best.tolist())


def test_twins_of_a_target_tie_with_it_wherever_they_stand():
    """An item alone may come out of a product differently in its last bit than in a block: it is counted with its
    block's own number, so equal vectors are equal."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2_051, 33, generator=generator)
    vectors[[3, 1_000, 2_050]] = vectors[700].clone()
    states = torch.randn(9, 33, generator=generator)
    scorer = DotScorer(vectors, torch.zeros(2_051), lambda people: Wanted(states[people]))
    nobody = [np.empty(0, np.int64)] * 9
    for width in (64, 1_024, 2_048):
        of_each = [
            ranks_and_best(
                scorer, np.arange(9), targets=[np.array([twin])] * 9, hidden=nobody, shown=3, items_at_a_time=width
            )[0]
            for twin in (700, 3, 1_000, 2_050)
        ]
        assert all(np.array_equal(of_each[0], other) for other in of_each[1:]), width
        assert all(rank % 1 == 0.5 for rank in np.concatenate(of_each[0]))  # 3 twins: half of them is 1.5


def test_evaluation_is_the_same_with_and_without_rows_of_scores():
    from simulations.rows import ranker_scorer, streamed_scorer

    train, targets = histories(*[4, 6, 1, 9, 3] * 4), histories(*[1, 2, 1, 0, 3] * 4, seed=1)
    ranker, parts = adapted(), [replace(public_pairs().part(), weight=2.0)] * 2
    for masking in Masking:
        options = {"people": np.arange(20), "items": ITEMS, "masking": masking, "batch": 6}
        whole, streamed = (
            evaluate(make(ranker, train, parts=parts), Split(train, targets.without_repeats()), **options)
            for make in (ranker_scorer, streamed_scorer)
        )
        assert whole.means() == pytest.approx(streamed.means())
        for name, values in whole.per_person.items():
            np.testing.assert_allclose(values, streamed.per_person[name], err_msg=name)


def test_rows_of_scores_are_as_few_as_fit(monkeypatch):
    monkeypatch.setattr("fedrec.evaluation.protocol.MOST_CELLS", 3 * ITEMS + 1)
    asked = []

    def scorer(people):
        asked.append(len(people))
        return np.zeros((len(people), ITEMS), np.float32)

    split = Split(histories(*[3] * 8), histories(*[1] * 8))
    evaluate(scorer, split, people=np.arange(8), items=ITEMS, masking=Masking.NONE)
    assert asked == [3, 3, 2]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_score_that_is_not_finite_is_refused(broken):
    scorer, _, _ = catalogue()
    scorer.bias[30] = broken
    with pytest.raises(RunError, match="scores are not finite: training diverged; lower the step size"):
        ranks_and_best(
            scorer, np.arange(2), targets=[np.array([0])] * 2, hidden=[np.empty(0, int)] * 2, shown=3, items_at_a_time=8
        )
