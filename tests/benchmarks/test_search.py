"""The search benchmark measures what it says, and search is as good as ``docs/search.md`` says."""

import re

import numpy as np
import pytest

from benchmarks import data_sets
from benchmarks.search import (
    FOLDER,
    by_score,
    by_search,
    empty_lists,
    graded_ndcg,
    measure,
    misspelt,
    read_chorus,
    recall,
)
from clients.serving.fulltext import FullTextIndex
from clients.serving.search import Searcher
from fedrec.errors import ConfigError


def test_gain_is_that_of_the_definition():
    judgments = {1: 3, 2: 1, 3: 0}
    assert graded_ndcg([1, 2, 9], judgments, cutoff=10) == 1
    assert graded_ndcg([9, 1], judgments, cutoff=10) == pytest.approx((7 / np.log2(3)) / (7 + 1 / np.log2(3)))
    assert graded_ndcg([9, 1], judgments, cutoff=1) == 0


def test_recall_counts_what_a_list_could_hold():
    judgments = {1: 3, 2: 1, 3: 2, 4: 0}
    assert recall([4, 1, 2], judgments, cutoff=50) == pytest.approx(2 / 3)
    assert recall([1, 2, 3], judgments, cutoff=2) == 1


@pytest.mark.parametrize(
    ("query", "slip"), [("red lamp", "red lmap"), ("tv", "tv"), ("aaa", "aaa"), ("book", "bok" + "o")]
)
def test_a_slip_swaps_two_letters_after_the_first(query, slip):
    assert misspelt(query) == slip


def test_lists_with_nothing_in_them_are_counted():
    assert empty_lists(lambda query, k, allowed: [1] if query == "ok" else [], ["ok", "no", "OK"], asked=str.lower) == 1


def test_the_judged_are_ranked_among_themselves():
    find = by_score(lambda query: np.array([0.9, 0.8, 0.1, 0.7]))
    assert find("", 2, None) == [0, 1]
    assert find("", 9, np.array([False, False, True, True])) == [3, 2]
    assert measure(find, {"q": {3: 3, 2: 0}}, asked=str, items=4) == pytest.approx([1 / np.log2(4), 1, 1])


def test_files_that_are_not_at_hand_are_named(tmp_path):
    with pytest.raises(ConfigError, match=rf"{re.escape(str(tmp_path))}: no catalogue.parquet and judgments.csv there"):
        read_chorus(tmp_path)


@pytest.mark.slow
def test_words_find_what_people_judged():
    if not (data_sets.DATA / FOLDER).is_dir():
        pytest.skip(f"{FOLDER} is not at hand; set FEDREC_TEST_DATA")
    catalogue, judged = read_chorus(data_sets.DATA / FOLDER)
    find = by_search(Searcher(FullTextIndex.build(catalogue), None))
    assert measure(find, judged, asked=str, items=len(catalogue)) == pytest.approx([0.763, 0.830, 0.826], abs=0.01)
    assert measure(find, judged, asked=misspelt, items=len(catalogue)) == pytest.approx([0.728, 0.817, 0.815], abs=0.01)
