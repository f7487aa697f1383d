"""A shop's own engine: what it gets, what it may answer, and what happens when it does not."""

import json
import logging
import time
from contextlib import ExitStack, closing

import numpy as np
import polars as pl
import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response

from clients.serving.elastic import ElasticIndex
from clients.serving.elastic_link import AUTHORIZATION, EngineLink
from clients.serving.fulltext import FullTextIndex
from clients.serving.served import load_served
from fedrec.data.catalogue import catalogue_of
from fedrec.errors import ConfigError, RunError
from tests.clients.serving.shops import Clock
from tests.clients.serving.tiny_engine import running
from tests.clients.serving.tiny_shop import ROWS, shop

LOCAL = FullTextIndex.build(shop())
RED_MUG = LOCAL.search("red mug", most=10)
SECRET = "ApiKey c2VjcmV0"


@pytest.fixture
def links():
    with ExitStack() as opened:
        yield lambda url, timeout_s=20: opened.enter_context(closing(EngineLink(url, timeout_s=timeout_s)))


@pytest.fixture
def engine():
    with running() as engine:
        yield engine


@pytest.fixture
def index_of(links):
    def made(engine, clock=None, *, timeout_s=20):
        return ElasticIndex(links(engine.url, timeout_s), LOCAL, shop(), clock=clock or Clock())

    return made


def test_the_catalogue_is_sent_once_as_words(engine, index_of):
    index_of(engine)
    index_of(engine)
    (sent,) = engine.asked("_bulk")
    lines = [json.loads(line) for line in sent.splitlines()]
    assert lines[0] == {"index": {"_id": "0"}}
    assert lines[1] == {
        "title": "red mug",
        "brand": "aurora",
        "category": "kitchen",
        "description": "a mug of stoneware",
    }
    assert len(lines) == 2 * len(ROWS)


def test_a_catalogue_that_was_sent_in_part_is_sent_again(engine, index_of):
    index_of(engine)
    (items,) = engine.indices.values()
    items.execute("DELETE FROM items WHERE rowid > 4")
    index_of(engine)
    assert len(engine.asked("_bulk")) == 2
    assert items.execute("SELECT count(*) FROM items").fetchone()[0] == len(ROWS)


def test_another_catalogue_has_an_index_of_its_own(engine, index_of, links):
    index_of(engine)
    other = catalogue_of(pl.DataFrame({"item_id": ["a"], "title": ["tin"]}))
    ElasticIndex(links(engine.url), FullTextIndex.build(other), other)
    assert len(engine.indices) == 2


def test_a_large_catalogue_goes_in_parts_and_what_is_allowed_is_found_behind_ten_thousand_others(engine, links):
    many = catalogue_of(pl.DataFrame({"item_id": [f"i{n}" for n in range(10_500)], "title": ["red mug"] * 10_500}))
    local = FullTextIndex.build(many)
    index = ElasticIndex(links(engine.url), local, many)
    assert len(engine.asked("_bulk")) == 11
    for first in (300, 10_200):
        allowed = np.arange(10_500) >= first
        found = [item for item, _ in index.search("mug", most=20, allowed=allowed)]
        assert found == list(range(first, first + 20))
    sizes = [json.loads(body)["size"] for body in engine.asked("_search")]
    assert max(sizes) == 10_000
    assert len(sizes) < 12


def test_an_item_with_some_of_the_words_never_stands_above_one_with_all(engine, index_of):
    index, readings = index_of(engine), [[(3, 2.0)], [(5, 8.0), (3, 2.0), (1, 4.0)]]

    def answer(path):
        hits = [{"_id": str(item), "_score": score} for item, score in readings.pop(0)]
        return JSONResponse({"hits": {"hits": hits}})

    engine.instead = answer
    assert index.search("red mug", most=10) == [(3, 2.0), (5, 2.0), (1, 1.0)]


def too_long(path):
    return Response(b"[" * 16_000_001)


BAD = {
    "answers 500": lambda path: JSONResponse({"error": {"type": "x"}}, 500),
    "answers 503": lambda path: Response("<html>", 503),
    "answers 401 (set FEDREC_SEARCH_AUTHORIZATION)": lambda path: JSONResponse({}, 401),
    "answers 307": lambda path: RedirectResponse("/elsewhere"),
    "answers nothing usable": lambda path: Response(b"[" * 100_000),
    "answers too much": too_long,
    "answers no list of hits": lambda path: JSONResponse({"hits": {"hits": [{"_id": "x", "_score": 1}]}}),
    "answers hits that are not of this catalogue": lambda path: JSONResponse(
        {"hits": {"hits": [{"_id": "10", "_score": 1.0}]}}
    ),
}


@pytest.mark.parametrize("why", BAD)
def test_where_the_engine_fails_the_local_index_answers_and_a_line_says_so(engine, why, caplog, index_of):
    clock = Clock()
    index = index_of(engine, clock)
    engine.instead = BAD[why]
    with caplog.at_level(logging.INFO, logger="clients"):
        assert index.search("red mug", most=10) == RED_MUG
        asked = len(engine.requests)
        assert index.search("red mug", most=10) == RED_MUG
        assert len(engine.requests) == asked, "it rests"
    assert caplog.messages == [f"search engine: {why}; the local index answers for 30 s"]
    engine.instead = None
    clock.now += 31
    assert index.search("red mug", most=10)[0][0] == RED_MUG[0][0]
    assert len(engine.requests) > asked, "it is asked again"


def test_an_engine_that_is_gone_or_slow_costs_one_query_its_patience(caplog, index_of):
    with running() as engine:
        index, slow = index_of(engine), index_of(engine, timeout_s=0.2)
        engine.instead = lambda path: time.sleep(1)
        assert slow.search("red mug", most=10) == RED_MUG
    assert index.search("red mug", most=10) == RED_MUG
    assert caplog.messages[0].startswith("search engine: does not answer (ReadTimeout); ")
    assert "does not answer (" in caplog.messages[-1]


@pytest.mark.parametrize(
    "hits",
    [
        {},
        None,
        {"hits": 3},
        {"hits": [{"_id": "1", "_score": float("nan")}]},
        {"hits": [{"_id": float("inf"), "_score": 1}]},
    ],
)
@pytest.mark.parametrize("name", ["hits", "took"])
def test_whatever_comes_back_no_query_fails(engine, hits, name, index_of):
    index = index_of(engine)
    engine.instead = lambda path: Response(json.dumps({name: hits}), media_type="application/json")
    assert index.search("red mug", most=10) == RED_MUG


def test_an_engine_that_cannot_be_used_is_told_at_the_start(index_of):
    with running() as engine:
        engine.instead = lambda path: JSONResponse({"error": {"type": "security_exception"}}, 403)
        with pytest.raises(
            RunError, match=r"answers 403 \(it may not do this\); mend it, or leave --search-engine out"
        ):
            index_of(engine)
        engine.instead = lambda path: JSONResponse({"errors": True}) if path.endswith("_bulk") else None
        with pytest.raises(RunError, match="does not take the catalogue"):
            index_of(engine)
        engine.instead = lambda path: JSONResponse({"count": 3}) if path.endswith("_count") else None
        with pytest.raises(RunError, match="has 3 of 10 items"):
            index_of(engine)
    with pytest.raises(RunError, match=r"does not answer \(ConnectError\); mend it"):
        index_of(engine)


def test_the_secret_comes_from_the_environment_and_goes_nowhere_else(engine, monkeypatch, caplog, index_of):
    monkeypatch.setenv(AUTHORIZATION, SECRET)
    index = index_of(engine)
    engine.instead = BAD["answers 500"]
    with caplog.at_level(logging.DEBUG):
        index.search("aurora", most=10)
    assert {headers["authorization"] for _, _, headers, _ in engine.requests} == {SECRET}
    assert SECRET not in caplog.text
    assert "aurora" not in caplog.text
    monkeypatch.setenv(AUTHORIZATION, "two\nlines")
    with pytest.raises((ConfigError, RunError)) as raised:
        index_of(engine)
    assert "lines" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://search.example.org:9200", "expected https beyond this machine"),
        ("https://user:word@search.example.org", "others can read a command line; put the secret into"),
        ("ftp://127.0.0.1", "expected https://HOST:PORT"),
        ("https://", "expected https://HOST:PORT"),
        ("http://[::1", "expected https://HOST:PORT"),
        ("http://127.0.0.1:port", "expected https://HOST:PORT"),
        ("https://search.example.org/?q=1", "expected https://HOST:PORT"),
    ],
)
def test_an_address_that_would_be_unsafe_or_none_is_refused(url, expected):
    with pytest.raises(ConfigError, match=expected) as raised:
        EngineLink(url, timeout_s=1)
    assert "word" not in str(raised.value)


def test_what_is_served_searches_by_the_engine_that_is_named(engine, counted_run, tmp_path):
    served = load_served(counted_run.out, encoder=None, cache=tmp_path, engine=engine.url)
    served.searcher.search("mug", k=3)
    assert len(engine.asked("_search")) == 1
    served.searcher._backend._link.close()
