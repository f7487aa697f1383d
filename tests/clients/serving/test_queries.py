"""What a person typed becomes words of letters and digits, the same for a catalogue and for a query."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.serving.queries import clean_query, folded_words, singular, words_of

ANY_TEXT = st.text(st.characters(), max_size=60)  # half pairs of UTF-16 and unassigned letters included


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("Café-Mugs", ["cafe", "mug"]),
        ("cafe\u0301 MUG", ["cafe", "mug"]),
        ("Straße", ["strasse"]),
        ("İstanbul", ["istanbul"]),
        ("TN-2110", ["tn", "2110"]),
        ("snake_case", ["snake", "case"]),
        ("½ l", ["1", "2", "l"]),
        ("кружки ёлка", ["кружки", "елка"]),
        ('"red" AND (mug*) -blue title:x', ["red", "and", "mug", "blue", "title", "x"]),
        (" \t!?🎧", []),
    ],
)
def test_words_are_folded(typed, words):
    assert words_of(typed) == words


@pytest.mark.parametrize(
    ("plural", "word"),
    [("batteries", "battery"), ("mugs", "mug"), ("cases", "case"), ("glass", "glass"), ("bus", "bus"), ("tvs", "tvs")],
)
def test_a_plural_loses_its_ending(plural, word):
    assert singular(plural) == word


def test_a_number_has_no_plural():
    assert singular("2000s") == "2000s"


@given(ANY_TEXT)
def test_words_hold_letters_and_digits_only(text):
    assert all(word.isalnum() for word in folded_words(text))


@given(ANY_TEXT)
def test_words_of_words_are_the_same(text):
    words = folded_words(text)
    assert folded_words(" ".join(words)) == words


@given(ANY_TEXT, st.integers(1, 40))
def test_a_clean_query_is_one_short_line_that_can_be_encoded(text, longest):
    clean = clean_query(text, longest=longest)
    assert len(clean) <= longest
    assert not {unicodedata.category(letter) for letter in clean} & {"Cc", "Cs"}
    assert clean == " ".join(clean.split())
    clean.encode()


def test_a_clean_query_keeps_what_was_meant():
    assert clean_query("  red\x00mug\ud800\n", longest=100) == "red mug"
    assert clean_query("red mug", longest=3) == "red"
