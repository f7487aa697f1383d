"""Words find products, however they are written, and nothing that is typed is a command."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.serving.fulltext import FullTextIndex
from clients.serving.queries import folded_words
from fedrec.config_search import SearchConfig
from fedrec.data.catalogue import catalogue_of
from tests.clients.serving.test_queries import ANY_TEXT
from tests.clients.serving.tiny_shop import ITEM, ROWS, ids, shop

OPERATORS = [
    "AND",
    "OR",
    "NOT",
    "NEAR(",
    ")",
    "(",
    '"',
    '""',
    "*",
    "-",
    "+",
    "^",
    ":",
    "title:",
    "{title}",
    ";",
    "--",
    "'",
]
AS_TYPED = st.lists(st.sampled_from([*OPERATORS, "red", "mug", "lamp", "headph", "\x00", "\ud800", "🎧"]), max_size=12)


INDEX = FullTextIndex.build(shop())


@pytest.fixture
def index():
    return INDEX


def found(index, query, **options):
    return ids([item for item, _ in index.search(query, **{"most": 10} | options)])


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("red mug", ["m1"]),
        ("RED MUGS", ["m1"]),
        ("mug red", ["m1"]),
        ("rde mug", ["m1"]),
        ("mug rde", ["m1"]),
        ("cafe", ["l2"]),
        ("CAFÉ", ["l2"]),
        ("strassenkarte gorlitz", ["g1"]),
        ("headph", ["h2", "h1"]),
        ("wireless headpones", ["h1"]),
        ("wireles headphones", ["h1"]),
        ("tn-2120", ["t2"]),
        ("aurora blue", ["m2"]),
        ("kitchen red", ["m1"]),
        ("red zzzzzz", ["m1", "l1"]),
    ],
)
def test_what_was_meant_comes_first(index, typed, first):
    assert found(index, typed)[: len(first)] == first


@pytest.mark.parametrize("typed", ["", " ", "!?", "🎧", "zzzzzz", "\x00", "\ud800", "qx"])
def test_a_query_without_a_known_word_finds_nothing(index, typed):
    assert index.search(typed, most=10) == []


def test_items_with_all_words_stand_above_those_with_some(index):
    hits = index.search("red mug", most=10)
    assert ids([item for item, _ in hits]) == ["m1", "m2", "l1", "l2"]
    scores = [score for _, score in hits]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


def test_some_of_the_words_count_only_where_all_of_them_find_too_little():
    index = FullTextIndex.build(shop(), SearchConfig(enough=1))
    assert found(index, "red mug") == ["m1"]
    assert found(index, "mug") == ["m1", "m2"]


def test_the_last_word_may_be_a_beginning_and_still_all_words_count():
    index = FullTextIndex.build(shop(), SearchConfig(enough=1))
    assert found(index, "wireless headph") == ["h1"]


def test_a_rare_word_does_not_lift_an_item_above_those_that_have_every_word():
    titles = ["tin", "tin", "tin", "zeppelin zeppelin", "a tin that shows a long and slow zeppelin"]
    index = FullTextIndex.build(catalogue_of(pl.DataFrame({"item_id": list("abcde"), "title": titles})))
    alone = index.search("zeppelin", most=9)
    assert [item for item, _ in alone] == [3, 4]
    hits = index.search("tin zeppelin", most=9)
    assert [item for item, _ in hits] == [4, 3, 0, 1, 2]
    assert hits[0][1] >= hits[1][1] > hits[2][1]


def test_a_word_of_the_title_counts_more_than_one_of_the_description(index):
    assert found(index, "lights")[0] == "l2"
    about = FullTextIndex.build(shop(), SearchConfig(title_weight=0.1, category_weight=0.1, description_weight=9))
    assert found(about, "lights")[0] == "l1"


def test_only_allowed_items_are_found(index):
    allowed = np.ones(len(ROWS), dtype=bool)
    allowed[ITEM["m1"]] = False
    assert found(index, "red mug", allowed=allowed) == ["m2", "l1", "l2"]
    assert found(index, "red mug", allowed=np.zeros(len(ROWS), dtype=bool)) == []
    assert found(index, "red mug", allowed=allowed, most=1) == ["m2"]


def test_equal_scores_stand_by_item():
    twins = pl.DataFrame({"item_id": list("dcba"), "title": ["green tin"] * 4})
    hits = FullTextIndex.build(catalogue_of(twins)).search("green tin", most=9)
    assert [item for item, _ in hits] == [0, 1, 2, 3]


def test_a_query_is_spelled_in_words_of_the_catalogue(index):
    assert index.spelled("Red  Mug?") == "Red  Mug?"
    assert index.spelled("rde mugs") == "red mugs"
    assert index.spelled("wireles headph") == "wireless headphone"
    assert index.spelled("zzzzzz 2119") == "zzzzzz 2119"


@given(AS_TYPED)
def test_nothing_that_is_typed_is_a_command(parts):
    typed = " ".join(parts)
    assert INDEX.search(typed, most=10) == INDEX.search(" ".join(folded_words(typed)), most=10)


@given(ANY_TEXT)
def test_any_text_is_answered(text):
    hits = INDEX.search(text, most=3)
    assert len(hits) <= 3
    assert all(0 <= item < len(ROWS) and score > 0 for item, score in hits)
    INDEX.spelled(text).encode(errors="surrogatepass")


@given(ANY_TEXT)
def test_an_expression_holds_quoted_words_and_our_own_operators_alone(text):
    for expression in INDEX._expressions(f"{text} AND red NEAR mgu headph"):
        assert re.fullmatch(r"(AND|OR|[ ()*])*", re.sub(r'"[^\W_]+"', "", expression))


@pytest.mark.parametrize(
    "typed", ["red " * 100_000, "x" * 1_000_000, "re* " * 9_999, "mgu " * 9_999, "\ufdfa" * 99_999]
)
def test_an_endless_query_is_cut(index, typed):
    began = time.perf_counter()
    assert index.search(typed, most=10) == index.search(typed[:200], most=10)
    assert time.perf_counter() - began < 2


def test_the_words_beyond_the_limit_are_not_read(index):
    assert found(index, " " * 196 + "mug red") == ["m1", "m2"]
    index = FullTextIndex.build(shop(), SearchConfig(most_words=2))
    assert found(index, "blue mug red lamp") == found(index, "blue mug")


def test_threads_may_share_an_index(index):
    queries = ["red mug", "cafe", "headph", "wireles"] * 25
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: index.search(query, most=5), queries))
    assert together == [index.search(query, most=5) for query in queries]
