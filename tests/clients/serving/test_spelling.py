"""The nearest known words are exactly those that a search of the whole vocabulary by edit distance finds."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.serving.spelling import Vocabulary, edit_distance

WORDS = st.text("abcde", min_size=1, max_size=10)


@cache
def distance_by_definition(first: str, second: str) -> int:
    """Optimal string alignment, from the ends of the words."""
    if not first or not second:
        return len(first) + len(second)
    options = [
        distance_by_definition(first[:-1], second) + 1,
        distance_by_definition(first, second[:-1]) + 1,
        distance_by_definition(first[:-1], second[:-1]) + (first[-1] != second[-1]),
    ]
    if len(first) > 1 and len(second) > 1 and first[-2:] == second[-1] + second[-2]:
        options.append(distance_by_definition(first[:-2], second[:-2]) + 1)
    return min(options)


@given(WORDS, WORDS)
def test_edit_distance_is_that_of_the_definition(first, second):
    assert edit_distance(first, second) == distance_by_definition(first, second)


@given(WORDS, st.dictionaries(WORDS, st.integers(1, 9), max_size=30))
def test_nearest_words_are_those_of_a_full_search(word, items_with):
    items_with.pop(word, None)
    reach = 2 if len(word) >= 8 else 1
    distances = {known: distance_by_definition(word, known) for known in items_with}
    least = min(distances.values(), default=99)
    expected = {known for known, distance in distances.items() if distance == least <= reach}
    if len(word) < 3:
        expected = set()
    elif len(word) == 3:
        expected = {known for known in expected if sorted(known) == sorted(word)}
    assert set(Vocabulary(items_with).nearest(word, most=99)) == expected


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("rde", ["red"]),
        ("lamb", ["lamp"]),
        ("headphnoes", ["headphones"]),
        ("hedfphones", ["headphones"]),  # two slips
        ("lmpa", []),  # two slips in a short word
        ("mud", []),  # in so short a word one other letter is another word
        ("tn2111", []),  # the next number is another product
        ("re", []),
        ("a" * 500, []),
    ],
)
def test_a_slip_is_forgiven(typed, meant):
    vocabulary = Vocabulary({"red": 3, "lamp": 1, "headphones": 2, "mug": 1, "tn2110": 1})
    assert vocabulary.nearest(typed, most=3) == meant


def test_the_same_letters_come_first_then_the_commoner_word():
    vocabulary = Vocabulary({"form": 1, "foam": 9, "firm": 5, "farm": 5})
    assert vocabulary.nearest("from", most=3) == ["form"]
    assert vocabulary.nearest("fxrm", most=3) == ["farm", "firm", "form"]
    assert vocabulary.nearest("fxrm", most=1) == ["farm"]


def test_a_word_two_slips_away_counts_only_where_none_is_nearer():
    vocabulary = Vocabulary({"headphones": 1, "headphoness": 9})
    assert vocabulary.nearest("headphone", most=3) == ["headphones"]
    assert vocabulary.nearest("hedphone", most=3) == ["headphones"]


def test_a_beginning_is_completed_by_the_commonest_word():
    vocabulary = Vocabulary({"head": 2, "headphone": 9, "headset": 9, "lamp": 99})
    assert vocabulary.completed("head") == "headphone"
    assert vocabulary.completed("headsets") is None
    assert vocabulary.completed("zebra") is None


def test_a_word_is_known_only_as_a_whole():
    vocabulary = Vocabulary({"head": 1, "lamp": 1})
    assert "head" in vocabulary
    assert "hea" not in vocabulary
    assert "zebra" not in vocabulary


def test_an_empty_vocabulary_has_nothing():
    assert Vocabulary({}).nearest("lamp", most=3) == []
    assert Vocabulary({}).completed("lamp") is None
