"""What search asks of any full-text engine, asked of each: SQLite's, a small one over HTTP, a real one if named."""

import os
from contextlib import closing

import numpy as np
import pytest

from clients.serving.elastic import ElasticIndex
from clients.serving.elastic_link import EngineLink
from clients.serving.fulltext import FullTextIndex
from clients.serving.search import Searcher
from tests.clients.serving.test_fulltext import OPERATORS
from tests.clients.serving.tiny_engine import running
from tests.clients.serving.tiny_shop import ITEM, ROWS, ids, shop


@pytest.fixture(scope="module", params=["sqlite", "http", "real"])
def backend(request):
    local = FullTextIndex.build(shop())
    if request.param == "sqlite":
        yield local
    elif request.param == "http":
        with running() as engine, closing(EngineLink(engine.url, timeout_s=20)) as link:
            yield ElasticIndex(link, local, shop())
    else:
        url = os.environ.get("FEDREC_TEST_ELASTIC")
        if not url:
            pytest.skip("FEDREC_TEST_ELASTIC names no engine")
        with closing(EngineLink(url, timeout_s=20)) as link:
            yield ElasticIndex(link, local, shop())


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("red mug", "m1"),
        ("RED MUGS", "m1"),
        ("mug red", "m1"),
        ("CAFÉ", "l2"),
        ("strassenkarte gorlitz", "g1"),
        ("wireless headpones", "h1"),
        ("tn-2120", "t2"),
        ("aurora blue", "m2"),
        ("red zzzzzz", "m1"),
        ("wireless headph", "h1"),
    ],
)
def test_what_was_meant_comes_first(backend, typed, first):
    assert ids([item for item, _ in backend.search(typed, most=10)])[0] == first


@pytest.mark.parametrize(
    ("typed", "meant"), [("headpones", {"h1"}), ("headph", {"h1", "h2"}), ("strasenkarte", {"g1"}), ("2130", set())]
)
def test_a_slip_in_the_only_word_and_its_beginning_are_forgiven_and_another_number_is_not(backend, typed, meant):
    assert meant <= set(ids([item for item, _ in backend.search(typed, most=10)]))
    assert meant or not backend.search(typed, most=10)


def test_items_with_all_words_stand_above_those_with_some_and_scores_fall(backend):
    hits = backend.search("red mug", most=10)
    assert {"m1", "m2", "l1", "l2"} <= set(ids([item for item, _ in hits]))
    scores = [score for _, score in hits]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0
    assert len({item for item, _ in hits}) == len(hits)


def test_only_what_is_allowed_is_found_and_no_more_than_asked(backend):
    allowed = np.zeros(len(ROWS), bool)
    allowed[[ITEM["m2"], ITEM["l1"]]] = True
    found = [item for item, _ in backend.search("red mug", most=10, allowed=allowed)]
    assert set(ids(found)) == {"m2", "l1"}
    assert len(backend.search("red mug", most=1, allowed=allowed)) == 1
    assert len(backend.search("red", most=2)) == 2
    assert backend.search("red", most=2, allowed=np.zeros(len(ROWS), bool)) == []


@pytest.mark.parametrize("typed", ["", "!?", "🎧", "\x00", "\ud800"])
def test_without_a_word_nothing_is_found(backend, typed):
    assert backend.search(typed, most=10) == []


@pytest.mark.parametrize("operator", OPERATORS)
def test_nothing_that_is_typed_is_a_command(backend, operator):
    found = [item for item, _ in backend.search(f"{operator} mug {operator}", most=10)]
    assert {"m1", "m2"} <= set(ids(found))


def test_unknown_words_are_spelled_for_an_encoder(backend):
    assert backend.spelled("rde mug") == "red mug"
    assert backend.spelled("red mug") == "red mug"


def test_search_mixes_its_hits(backend):
    hits = Searcher(backend, None).search("red mug", k=3)
    assert ids([hits[0].item]) == ["m1"]
    assert hits[0].score == 1.25
