"""Queries are made of the title of what was bought next, and what comes later is not looked at."""

import numpy as np
import pytest

from benchmarks.search_person import WEIGHTS, asked, gains, loss_to_best
from clients.serving.fulltext import FullTextIndex
from clients.serving.search import Searcher
from fedrec.config_search import SearchConfig
from fedrec.data.histories import Histories
from tests.tiny_serving import shop_of

TITLES = ("Red mug", "Big BLUE mug mug", "4711", "of it", "lamp")


def test_words_are_those_of_what_was_bought_after_the_past():
    panel = Histories.from_lists([[0, 1, 4], [3, 0], [1], [1, 2]])
    searches = asked(panel, TITLES, seed=0)
    assert [(one.person, one.past.tolist(), one.bought, sorted(one.words)) for one in searches] == [
        (0, [0], 1, ["BLUE", "Big", "mug"]),
        (0, [0, 1], 4, ["lamp"]),
        (1, [3], 0, ["Red", "mug"]),
    ]


def test_only_the_latest_events_of_a_person_are_searches():
    searches = asked(Histories.from_lists([[0, 1, 0, 1, 0, 1]]), TITLES, seed=0)
    assert [len(one.past) for one in searches] == [3, 4, 5]


def test_a_person_is_one_row_and_a_weight_one_column(counted_run):
    shop = shop_of(counted_run.out)
    searches = asked(shop.train.subset(np.arange(4)), shop.model.catalogue.titles, seed=0)
    found = gains(shop.model, Searcher(FullTextIndex.build(shop.model.catalogue), None), searches, words=1)
    assert found.shape == (4, len(WEIGHTS))
    assert ((found >= 0) & (found <= 1)).all()
    whole = gains(shop.model, Searcher(FullTextIndex.build(shop.model.catalogue), None), searches, words=2)
    assert whole[:, 0].tolist() == pytest.approx([1.0] * 4)  # two words name one of forty items


def test_the_best_weight_loses_nothing_and_is_the_one_of_the_settings():
    assert loss_to_best(np.array([[0.5, 0.6], [0.1, 0.3]])) == "0.150 ± 0.050 | 0.000 ± 0.000"
    assert SearchConfig().person in WEIGHTS
