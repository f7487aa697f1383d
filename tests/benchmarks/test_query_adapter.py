"""What the benchmark learns from is no part of what it judges by."""

import numpy as np
import pytest

from benchmarks.query_adapter import Bench, clicks, clicks_by_brand, federated, titles, ways
from clients.serving.dense import DenseIndex
from clients.serving.fulltext import FullTextIndex
from fedrec.config_search import QueryTrainingConfig, SearchConfig
from fedrec.model.encoder import HashingEncoder
from fedrec.model.items import item_vectors
from tests.clients.serving.tiny_shop import ITEM, shop

JUDGED = {
    "mug": {ITEM["m1"]: 3, ITEM["m2"]: 2, ITEM["l1"]: 1},
    "red": {ITEM["m1"]: 3, ITEM["l1"]: 2, ITEM["h1"]: 0},
    "light": {ITEM["l2"]: 3, ITEM["l1"]: 3},
    "sound": {ITEM["h1"]: 2, ITEM["h2"]: 1},
}
QUERIES = list(JUDGED)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr("benchmarks.query_adapter.TITLES", 8)
    dense = DenseIndex(item_vectors(shop(), HashingEncoder(), cache_dir=None), HashingEncoder())
    words = FullTextIndex.build(shop())
    return Bench(shop(), JUDGED, words, dense, SearchConfig(), QueryTrainingConfig(epochs=2, rank=2))


def test_halves_share_no_query(bench):
    for split in range(5):
        learn, judge = bench.halves(split)
        assert sorted(learn + judge) == sorted(JUDGED)
        assert len(learn) == len(judge) == 2
    assert bench.halves(0) == bench.halves(0)
    assert len({tuple(sorted(bench.halves(split)[0])) for split in range(9)}) > 1


def test_a_choice_is_what_was_rated_well(bench):
    events = clicks(bench, ["mug", "sound"])
    assert list(zip(events.queries, events.items.tolist(), strict=True)) == [
        ("mug", ITEM["m1"]),
        ("mug", ITEM["m2"]),
        ("sound", ITEM["h1"]),
    ]
    assert events.people.tolist() == [0, 0, 1]


def test_a_brand_holds_its_own_products_and_its_own_people(bench):
    brands = clicks_by_brand(bench, QUERIES)
    assert [events.persons for events in brands] == [2, 2, 1]  # Aurora, Lumen, Sonar
    assert [events.queries for events in brands] == [("mug", "mug", "red"), ("light", "light", "red"), ("sound",)]
    assert sum(map(len, brands)) == len(clicks(bench, QUERIES))


def test_titles_are_public_words_of_their_own_item(bench):
    events = titles(bench)
    assert 6 <= len(events) <= 8
    for query, item in zip(events.queries, events.items.tolist(), strict=True):
        words = shop().titles[item].split()
        assert 1 <= len(query.split()) <= 3
        assert set(query.split()) <= set(words)


def test_every_way_gives_a_search_that_can_be_measured(bench, monkeypatch):
    monkeypatch.setattr("benchmarks.query_adapter.ROUNDS", 1)
    found = {name: bench.quality(learn(QUERIES[:2]), QUERIES[2:]) for name, learn in ways(bench)}
    assert next(iter(found)) == "as it is"
    assert len(found) == 10
    assert all(((values >= 0) & (values <= 1)).all() for values in found.values())


def test_noise_moves_what_is_learned(bench, monkeypatch):
    monkeypatch.setattr("benchmarks.query_adapter.ROUNDS", 3)  # of one round Adam keeps the sign alone
    quiet, again, noisy = (
        federated(bench, QUERIES, turns=False, epsilon=epsilon).words for epsilon in (None, None, 8.0)
    )
    assert quiet == again
    assert quiet != noisy
    assert np.isfinite(noisy)
