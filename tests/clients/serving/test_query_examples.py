"""What training sees of a query is what search sees of it."""

import numpy as np
import polars as pl
import pytest
import torch

from clients.serving.dense import DenseIndex
from clients.serving.fulltext import FullTextIndex
from clients.serving.query_examples import query_examples
from clients.serving.query_training import new_adapter
from clients.serving.search import Searcher
from fedrec.config_search import QueryTrainingConfig, SearchConfig
from fedrec.data.query_events import query_events
from fedrec.model.encoder import HashingEncoder
from fedrec.model.items import item_vectors
from fedrec.model.query_adapter import mixed_scores
from tests.clients.serving.tiny_shop import ITEM, ROWS, shop

WORDS = FullTextIndex.build(shop())
DENSE = DenseIndex(item_vectors(shop(), HashingEncoder(), cache_dir=None), HashingEncoder())
SEARCH = SearchConfig()


def examples_of(rows, **changes):
    events = query_events(pl.DataFrame(rows, ["user_id", "query", "item_id"], orient="row"), shop())
    return query_examples(events, WORDS, DENSE, search=SEARCH, training=QueryTrainingConfig(**changes))


@pytest.mark.parametrize("query", ["red mug", "rde mug", "wireles hedphones", "cupmugglike", "café", "🎧 lamp"])
def test_scores_before_training_are_those_of_search(query):
    of = examples_of([("ann", query, "h2")])
    scores = mixed_scores(new_adapter(DENSE, SEARCH, QueryTrainingConfig()), torch.from_numpy(DENSE.vectors), of)
    found = {hit.item: hit.score for hit in Searcher(WORDS, DENSE).search(query, k=len(ROWS))}
    asked = of.is_candidate[0, 0]
    assert sorted(of.items[0, 0][asked].tolist()) == sorted(found)  # ten items: all are candidates
    for item, score in zip(of.items[0, 0][asked].tolist(), scores[0, 0][asked].tolist(), strict=True):
        assert score == pytest.approx(found[item], abs=1e-5)


def test_what_was_chosen_comes_first_and_no_item_twice():
    of = examples_of([("ann", "red", "m1"), ("ann", "toner", "t2"), ("bob", "map", "g1")])
    assert of.is_event.tolist() == [[True, True], [True, False]]
    assert of.items[..., 0].tolist() == [[ITEM["m1"], ITEM["t2"]], [ITEM["g1"], 0]]
    for person, event in torch.nonzero(of.is_event).tolist():
        items = of.items[person, event][of.is_candidate[person, event]].tolist()
        assert len(items) == len(set(items))
    assert of.is_candidate[1, 1].all()  # a row that is no event


def test_candidates_are_the_best_hits_and_uniform_items_that_are_the_same_for_all():
    few = {"hits_by_words": 1, "hits_by_meaning": 1, "negatives": 2}
    of = examples_of([("ann", "toner", "m1"), ("bob", "wireless", "m1"), ("cat", "toner", "m1")], **few)
    own = [set(of.items[person, 0][of.is_candidate[person, 0]].tolist()) for person in range(3)]
    negatives = set(np.random.default_rng([0, len(ROWS)]).choice(len(ROWS), 2, replace=False).tolist())
    assert own[0] == {ITEM["m1"], ITEM["t1"]} | negatives  # equal to t2 by words and by meaning, and before it
    assert own[1] == {ITEM["m1"], ITEM["h1"]} | negatives
    assert own[2] == own[0]


def test_the_latest_events_of_a_person_count():
    of = examples_of([("ann", "red", item) for item in ("m1", "l1", "l2")], events=2)
    assert of.items[0, :, 0].tolist() == [ITEM["l1"], ITEM["l2"]]


def test_others_change_nothing_of_a_person():
    alone = examples_of([("bob", "red lamp", "l1")])
    among = examples_of([("ann", "toner", "t1"), ("bob", "red lamp", "l1"), ("cat", "mug", "m1"), ("cat", "x", "m2")])
    for name in ("readings", "items", "words", "is_candidate"):
        assert torch.equal(getattr(alone, name)[0, 0], getattr(among, name)[1, 0])
