"""Words, meaning and a person's own score in one list; each hit says what found it."""

import logging
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.serving.dense import DenseIndex
from clients.serving.fulltext import FullTextIndex
from clients.serving.search import Hit, Searcher, _largest, scaled_to_one
from fedrec.config_search import SearchConfig
from fedrec.errors import ConfigError, DataError
from fedrec.model.encoder import HashingEncoder
from fedrec.model.items import item_vectors
from tests.clients.serving.test_queries import ANY_TEXT
from tests.clients.serving.tiny_shop import ITEM, ROWS, ids, shop

WORDS_ONLY = Searcher(FullTextIndex.build(shop()), None)
DENSE = DenseIndex(item_vectors(shop(), HashingEncoder(), cache_dir=None), HashingEncoder())
BOTH = Searcher(FullTextIndex.build(shop()), DENSE)


def found(searcher, query, **options):
    return ids([hit.item for hit in searcher.search(query, **{"k": 10} | options)])


def test_a_misspelt_query_finds_what_was_meant():
    for searcher in (WORDS_ONLY, BOTH):
        assert found(searcher, "rde mug")[0] == "m1"
        assert found(searcher, "wireles hedphones")[0] == "h1"


def test_meaning_answers_where_no_word_is_known():
    assert found(WORDS_ONLY, "cupmugglike") == []
    hits = BOTH.search("cupmugglike", k=3)
    assert len(hits) == 3
    assert all(hit.parts.keys() == {"meaning"} for hit in hits)


def test_the_encoder_reads_a_misspelt_query_as_it_was_meant_too():
    meant = BOTH.search("red mug", k=1)[0]
    assert BOTH.search("rde mug", k=1)[0].parts["meaning"] == meant.parts["meaning"] == 1.0
    query = "lamb"  # no item has it; "lamp" is one letter away, and whichever reading is nearer counts
    own, near = DENSE.scores(query), DENSE.scores("lamp")
    expected = scaled_to_one(np.maximum(own, near).astype(np.float64))
    assert {hit.item: hit.parts["meaning"] for hit in BOTH.search(query, k=10)} == dict(enumerate(expected))


def test_a_hit_says_what_found_it_and_its_parts_make_its_score():
    hits = {ROWS[hit.item][0]: hit for hit in BOTH.search("red mug", k=10)}
    assert hits["m1"].parts.keys() == {"words", "meaning"}
    assert hits["t1"].parts.keys() == {"meaning"}
    assert all(hit.score == pytest.approx(sum(hit.parts.values())) for hit in hits.values())


def test_the_mix_is_the_one_of_the_settings():
    config = SearchConfig(words_beside_hashing=0.5, meaning=2.0)
    best = Searcher(FullTextIndex.build(shop()), DENSE, config).search("red mug", k=1)[0]
    assert best == Hit(ITEM["m1"], 2.5, {"words": 0.5, "meaning": 2.0})


def test_a_language_model_counts_more_beside_words_than_the_built_in_encoder():
    class Reader(HashingEncoder):
        name = "reader"

    reading = Searcher(
        FullTextIndex.build(shop()), DenseIndex(item_vectors(shop(), Reader(), cache_dir=None), Reader())
    )
    config = SearchConfig()
    assert reading.search("red mug", k=1)[0].parts["words"] == config.words
    assert BOTH.search("red mug", k=1)[0].parts["words"] == config.words_beside_hashing


def test_a_persons_score_orders_what_was_found_and_finds_nothing():
    likes_lamps = np.zeros(len(ROWS), dtype=np.float32)
    likes_lamps[ITEM["l1"]] = 7
    likes_lamps[ITEM["t1"]] = 9
    assert found(WORDS_ONLY, "red") == ["m1", "l1", "l2"]
    assert found(WORDS_ONLY, "red", user_scores=likes_lamps) == ["l1", "m1", "l2"]
    hit = WORDS_ONLY.search("red", k=1, user_scores=likes_lamps, personal=0.7)[0]
    assert hit.parts["person"] == 0.7


def test_a_person_without_weight_sees_what_everybody_sees():
    scores = np.arange(len(ROWS), dtype=np.float32)
    assert found(BOTH, "red", user_scores=scores, personal=0) == found(BOTH, "red")
    assert found(BOTH, "red", user_scores=np.full(len(ROWS), 3, np.float32)) == found(BOTH, "red")


def test_an_item_that_cannot_be_recommended_to_a_person_counts_as_the_least():
    scores = np.full(len(ROWS), -np.inf, dtype=np.float32)
    scores[ITEM["l1"]], scores[ITEM["m1"]] = 2, np.nan
    hits = {ROWS[hit.item][0]: hit.parts["person"] for hit in BOTH.search("red", k=10, user_scores=scores)}
    assert set(hits.values()) == {0.0}
    scores[ITEM["l2"]] = 1
    hits = {ROWS[hit.item][0]: hit.parts["person"] for hit in BOTH.search("red", k=10, user_scores=scores)}
    assert {name for name, value in hits.items() if value > 0} == {"l1"}


def test_only_allowed_items_are_found_by_any_part():
    allowed = np.zeros(len(ROWS), dtype=bool)
    allowed[[ITEM["m2"], ITEM["t1"]]] = True
    assert found(BOTH, "red mug", allowed=allowed) == ["m2", "t1"]
    allowed[ITEM["t1"]] = False
    assert found(BOTH, "lamp", allowed=allowed) == ["m2"]
    assert found(BOTH, "lamp", allowed=np.zeros(len(ROWS), dtype=bool)) == []


def test_a_short_list_is_the_beginning_of_a_long_one():
    searcher = Searcher(FullTextIndex.build(shop()), DENSE, SearchConfig(word_hits=1, meaning_hits=1, enough=1))
    assert found(searcher, "cafe", k=1) == found(BOTH, "cafe")[:1]
    assert found(searcher, "cafe") == found(BOTH, "cafe")
    assert found(Searcher(FullTextIndex.build(shop()), None, SearchConfig(word_hits=1)), "red") == ["m1", "l1", "l2"]
    assert [found(BOTH, "red mug", k=k) for k in range(1, 11)] == [found(BOTH, "red mug")[:k] for k in range(1, 11)]


def test_equal_scores_stand_by_item():
    hits = BOTH.search("toner", k=10)
    assert [hit.item for hit in hits if hit.score == hits[0].score] == [ITEM["t1"], ITEM["t2"]]


@given(ANY_TEXT, st.integers(1, 12))
def test_any_text_is_answered_in_order(text, k):
    hits = BOTH.search(text, k=k)
    assert len(hits) <= k
    assert all(a.score > b.score or (a.score == b.score and a.item < b.item) for a, b in pairwise(hits))
    assert BOTH.search(text, k=k) == hits
    if not any(letter.isalnum() for letter in text):
        assert hits == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"k=0: expected >= 1"),
        ({"k": 1, "personal": -1.0}, r"personal=-1\.0: expected a finite number >= 0"),
        ({"k": 1, "personal": float("nan")}, r"personal=nan: expected a finite number >= 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        BOTH.search("red", **options)


def test_vectors_of_another_encoder_are_refused():
    with pytest.raises(DataError, match=r"item vectors \(10, 8\): encoder hashing gives 384 numbers an item; encode"):
        DenseIndex(np.ones((10, 8), dtype=np.float32), HashingEncoder())


def test_a_cosine_is_that_of_the_definition():
    vectors = item_vectors(shop(), HashingEncoder(), cache_dir=None)
    query = HashingEncoder().encode(["red mug"])[0]
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    expected = np.divide(vectors @ query, lengths, out=np.zeros(len(ROWS)), where=lengths > 0)
    assert DENSE.scores("red mug") == pytest.approx(expected, abs=1e-6)
    assert DENSE.scores("🎧") is None


def test_scores_are_stretched_from_nought_to_one():
    assert scaled_to_one(np.array([3.0, 1.0, -np.inf, 2.0, np.nan])).tolist() == [1.0, 0.0, 0.0, 0.5, 0.0]
    assert scaled_to_one(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]
    assert scaled_to_one(np.array([-np.inf])).tolist() == [0.0]


def test_an_encoder_gets_short_lines_that_can_be_encoded():
    read = []

    class Careful(HashingEncoder):
        def encode(self, texts, *, progress=None):
            read.extend(text.encode() for text in texts)
            return super().encode(texts, progress=progress)

    searcher = Searcher(FullTextIndex.build(shop()), DenseIndex(np.zeros((len(ROWS), 384), np.float32), Careful()))
    searcher.search("rde\ud800\n\x00mug " + "x" * 10_000, k=1)
    assert read[0].startswith(b"rde mug xxx")
    assert max(len(text) for text in read) <= 200


def test_nothing_is_logged(caplog):
    with caplog.at_level(logging.DEBUG):
        BOTH.search("rde secretword", k=5, user_scores=np.ones(len(ROWS), dtype=np.float32))
    assert caplog.text == ""


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=40), st.integers(1, 50))
def test_the_largest_are_those_of_a_whole_stable_sort(values, most):
    expected = np.argsort(-np.array(values), kind="stable")[:most]
    assert _largest(np.array(values, dtype=np.float64), most).tolist() == expected.tolist()
