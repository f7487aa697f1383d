import numpy as np
import pytest

from fedrec.data.histories import Histories
from fedrec.errors import DataError
from fedrec.evaluation.baselines import _largest, _neighbours, ease, frozen_text, markov_knn, popularity, repeat

TRAIN = Histories.from_lists([[0, 1, 2], [0, 1, 0], [0, 3], []])
ITEMS = 5
VECTORS = np.eye(ITEMS, dtype=np.float32)

SCORERS = {
    "popularity": lambda train: popularity(train, items=ITEMS),
    "repeat": lambda train: repeat(train, items=ITEMS),
    "markov_knn": lambda train: markov_knn(train, items=ITEMS),
    "ease": lambda train: ease(train, items=ITEMS, ridge=1.0, recent=10),
    "frozen_text": lambda train: frozen_text(train, VECTORS, window=8, decay=0.8),
}


@pytest.fixture(params=SCORERS)
def build(request):
    return SCORERS[request.param]


def test_every_item_of_every_person_gets_a_finite_float32_score(build):
    scores = build(TRAIN)(np.array([3, 0, 2]))
    assert scores.shape == (3, ITEMS)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_a_person_is_scored_the_same_in_any_company(build):
    scorer = build(TRAIN)
    together, alone = scorer(np.array([2, 0, 1])), scorer(np.array([0]))
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-6)


def test_scoring_twice_gives_the_same_and_leaves_histories_alone(build):
    before = TRAIN.items.copy()
    scorer = build(TRAIN)
    assert (scorer(np.arange(4)) == scorer(np.arange(4))).all()
    assert (TRAIN.items == before).all()


def test_one_event_in_all_is_enough(build):
    scores = build(Histories.from_lists([[2], []]))(np.array([0, 1]))
    assert np.isfinite(scores).all()


def test_popularity_is_the_share_of_events():
    np.testing.assert_allclose(popularity(TRAIN, items=ITEMS)(np.array([3]))[0], np.array([4, 2, 1, 1, 0]) / 8)


def test_repeat_counts_own_purchases_and_breaks_ties_by_popularity():
    scores = repeat(TRAIN, items=ITEMS)(np.array([1, 0]))
    assert np.argsort(-scores[0], kind="stable")[:2].tolist() == [0, 1]  # twice, once
    assert np.argsort(-scores[1], kind="stable").tolist() == [0, 1, 2, 3, 4]  # once each, then what others take


def test_popularity_never_outweighs_an_own_purchase():
    crowd = Histories.from_lists([[1]] + [[0]] * 50)
    assert repeat(crowd, items=2)(np.array([0]))[0].argmax() == 1


def test_frozen_text_is_the_cosine_with_the_decayed_mean():
    scores = frozen_text(TRAIN, VECTORS, window=2, decay=0.5)(np.array([0]))[0]
    wanted = np.array([0.0, 0.5, 1.0, 0.0, 0.0])  # the last two events, the earlier one halved
    np.testing.assert_allclose(scores, wanted / np.linalg.norm(wanted), rtol=1e-6)


def test_frozen_text_knows_nothing_of_a_person_without_a_history():
    assert (frozen_text(TRAIN, VECTORS, window=8, decay=0.8)(np.array([3])) == 0).all()


def test_frozen_text_does_not_read_other_people():
    lonely = Histories.from_lists([[0, 1, 2], [], [], []])
    pair = [frozen_text(train, VECTORS, window=8, decay=0.8)(np.array([0])) for train in (TRAIN, lonely)]
    assert (pair[0] == pair[1]).all()


def test_markov_ranks_what_followed_the_last_item_first():
    train = Histories.from_lists([[0, 1]] * 5 + [[1, 0], [2, 0], [3]])
    scores = markov_knn(train, items=4)(np.array([6]))[0]  # the last item is 0
    assert scores.argmax() == 1


def test_markov_does_not_step_from_one_person_to_the_next():
    apart = markov_knn(Histories.from_lists([[0], [1], [0]]), items=2)(np.array([0]))[0]
    np.testing.assert_allclose(apart, 1e-3 * np.array([2, 1]) / 3, rtol=1e-5)  # nothing but popularity is left


def test_neighbours_are_cosines_over_people():
    train = Histories.from_lists([[0, 1, 1], [0, 1], [0, 2]])
    together = _neighbours(train, 3).after(np.array([0]), decay=1.0)
    np.testing.assert_allclose(together, [0.0, 2 / np.sqrt(3 * 2), 1 / np.sqrt(3 * 1)], rtol=1e-6)


def test_neighbours_equal_a_dense_product():
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 9, rng.integers(0, 7)).tolist() for _ in range(40)]
    took = np.zeros((40, 9))
    for person, history in enumerate(lists):
        took[person, history] = 1
    both = took.T @ took
    expected = both / np.sqrt(np.outer(both.diagonal(), both.diagonal()))
    np.fill_diagonal(expected, 0)
    table = _neighbours(Histories.from_lists(lists), 9)
    rows = [table.after(np.array([item]), decay=1.0) for item in range(9)]
    np.testing.assert_allclose(np.array(rows), expected, rtol=1e-6)


def test_only_the_nearest_neighbours_are_kept():
    assert _largest(np.array([0.1, 0.0, 0.5, 0.3]), 2).tolist() == [2, 3]
    assert _largest(np.array([0.1, 0.0, 0.5, 0.3]), 9).tolist() == [0, 2, 3]


def test_the_mix_weighs_what_follows_against_who_bought_together():
    train = Histories.from_lists([[0, 1], [2, 0], [2]])
    scores = markov_knn(train, items=3)(np.array([2]))[0]  # the last item is 2: then came 0, and only with 0
    assert scores.argmax() == 0
    assert scores[0] == pytest.approx(1 + 1e-3 * 2 / 5, rel=1e-5)


def test_ease_is_the_ridge_regression_of_each_item_on_the_others():
    rng = np.random.default_rng(0)
    train = Histories.from_lists([rng.integers(0, ITEMS, rng.integers(1, 7)).tolist() for _ in range(40)])
    taken = np.zeros((40, ITEMS))
    for person in range(40):
        taken[person, train.of(person)] = 1
    expected = np.zeros((40, ITEMS))
    for item in range(ITEMS):
        others = np.delete(taken, item, axis=1)
        weights = np.linalg.solve(others.T @ others + 3.0 * np.eye(ITEMS - 1), others.T @ taken[:, item])
        expected[:, item] = others @ weights
    scores = ease(train, items=ITEMS, ridge=3.0, recent=10)(np.arange(40))
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_ease_looks_up_each_of_the_latest_items_once():
    scorer = ease(TRAIN, items=ITEMS, ridge=1.0, recent=2)
    longer = ease(TRAIN, items=ITEMS, ridge=1.0, recent=3)
    assert not np.allclose(scorer(np.array([0])), longer(np.array([0])))
    np.testing.assert_array_equal(scorer(np.array([1])), longer(np.array([1])))  # 0, 1, 0
    assert not scorer(np.array([3])).any()


def test_ease_on_a_catalogue_whose_square_does_not_fit_is_refused():
    with pytest.raises(DataError, match=r"EASE on 20001 items: expected at most 20000, its matrix grows with"):
        ease(TRAIN, items=20_001, ridge=1.0, recent=10)
