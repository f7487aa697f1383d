"""Filters, the order of scores, and lists of items unlike one another."""

import numpy as np
import polars as pl
import pytest

from clients.serving.ranking import Filters, allowed_items, best_of, diversified
from fedrec.data.catalogue import Catalogue
from fedrec.errors import ConfigError

CATALOGUE = Catalogue(
    ("a", "b", "c", "d", "e"),
    ("red mug", "blue mug", "lamp", "bag", "tin"),
    pl.DataFrame({"category": ["Mugs", "mugs ", "lamps", None, "tins"], "price": [1.0, 2.0, 30.0, None, 0.0]}),
)
BARE = Catalogue(("a", "b"), ("red mug", "blue mug"), pl.DataFrame())


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), "abcde"),
        (Filters(category="MUGS"), "ab"),
        (Filters(max_price=2.0), "abe"),
        (Filters(min_price=1.0), "abc"),
        (Filters(min_price=0.5, max_price=2.0), "ab"),
        (Filters(in_stock=frozenset({"a", "d", "gone"})), "ad"),
        (Filters(in_stock=frozenset()), ""),
        (Filters(category="mugs", max_price=1.5, in_stock={"a", "b"}), "a"),
        (Filters(hide_bought=True), "abcde"),
    ],
)
def test_only_what_passes_every_filter_is_allowed(filters, expected):
    assert "".join(np.array(CATALOGUE.item_ids)[allowed_items(CATALOGUE, filters)]) == expected


@pytest.mark.parametrize(
    ("catalogue", "filters", "expected"),
    [
        (BARE, Filters(category="mugs"), "category: the catalogue has no such column, so leave this filter out"),
        (BARE, Filters(max_price=3), "price: the catalogue has no such column"),
        (CATALOGUE, Filters(category="mugz"), "category 'mugz': no item of the catalogue has it; did you mean 'mugs'"),
        (CATALOGUE, Filters(category=" "), "category ' ': no item of the catalogue has it"),
        (CATALOGUE, Filters(min_price=3, max_price=2), "price from 3 to 2: expected a range of numbers >= 0"),
        (CATALOGUE, Filters(max_price=float("nan")), "price from 0 to nan: expected a range"),
        (CATALOGUE, Filters(min_price=-1), "price from -1 to inf: expected a range"),
    ],
)
def test_a_filter_that_cannot_be_answered_is_refused(catalogue, filters, expected):
    with pytest.raises(ConfigError, match=expected):
        allowed_items(catalogue, filters)


def test_the_best_come_first_and_of_equals_the_first_in_the_catalogue():
    scores = np.array([1.0, 3.0, -np.inf, 3.0 + 2e-6, 2.0, 3.0], np.float32)
    assert best_of(scores, 4).tolist() == [1, 3, 5, 4]
    assert best_of(scores, 2).tolist() == [1, 3]
    assert best_of(scores, 99).tolist() == [1, 3, 5, 4, 0]
    assert best_of(scores, 0).tolist() == []
    assert best_of(np.full(3, -np.inf), 2).tolist() == []


def test_the_best_are_those_of_a_plain_sort():
    rng = np.random.default_rng(0)
    for _ in range(100):
        scores = rng.integers(0, 12, rng.integers(1, 40)) / 4
        most = int(rng.integers(0, 45))
        assert best_of(scores, most).tolist() == np.argsort(-scores, kind="stable")[:most].tolist()


def test_maximal_marginal_relevance_worked_by_hand():
    """Scores 4, 3, 2, 0 are relevances 1, .75, .5, 0; the second is a twin of the first, the others are unlike it.

    At .5 the second choice is worth .5 * .75 - .5 * 1 = -.125 for the twin and .25 for the third item.
    """
    scores = np.array([4.0, 3.0, 2.0, 0.0])
    vectors = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    assert diversified(scores, vectors, k=4, diversity=0.0).tolist() == [0, 1, 2, 3]
    assert diversified(scores, vectors, k=4, diversity=0.5).tolist() == [0, 2, 3, 1]
    assert diversified(scores, vectors, k=2, diversity=0.1).tolist() == [0, 1]  # .9 * .75 - .1 = .575 against .45
    assert diversified(scores, vectors, k=3, diversity=1.0).tolist() == [0, 2, 3]


def test_the_likeness_that_counts_is_to_the_nearest_item_chosen():
    """The third item is a twin of the second, not of the first: once both are chosen the fourth is worth more."""
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    assert diversified(np.array([4.0, 3.9, 3.8, 0.1]), vectors, k=3, diversity=0.9).tolist() == [0, 1, 3]


@pytest.mark.parametrize("scores", [[], [2.0], [1.0, 1.0, 1.0]])
def test_few_or_equal_items_make_a_list_too(scores):
    chosen = diversified(np.array(scores), np.eye(3, dtype=np.float32)[: len(scores)], k=5, diversity=0.3)
    assert sorted(chosen.tolist()) == list(range(len(scores)))


@pytest.mark.parametrize("diversity", [-0.1, 1.1, float("nan")])
def test_diversity_is_a_share(diversity):
    with pytest.raises(ConfigError, match=r"diversity=.*: expected 0 to 1"):
        diversified(np.array([2.0, 1.0]), np.eye(2, dtype=np.float32), k=2, diversity=diversity)
