"""What a person typed, as words. Queries are data: what leaves here holds letters and digits, and nothing that a search
engine could take for a command.
"""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")


def clean_query(query: str, *, longest: int) -> str:
    """A query that every component can read.

    Args:
        query: as typed; anything.
        longest: characters kept, >= 1.

    Returns:
        At most ``longest`` characters on one line, without control characters and half pairs of UTF-16; ``""`` when
        nothing is left.
    """
    visible = (" " if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in query[:longest])
    return " ".join("".join(visible).split())


def folded_words(text: str) -> list[str]:
    """A text's words, folded for case and stripped of accents; they end at anything that is neither letter nor digit.

    A language that sets no spaces between words gives one long word.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return _WORD.findall("".join(letter for letter in folded if unicodedata.category(letter) != "Mn"))


def words_of(text: str) -> list[str]:
    """A text's words as they are indexed and looked up: "Café-Mugs" and "cafe mug" are the same words."""
    return [singular(word) for word in folded_words(text)]


def singular(word: str) -> str:
    """A word without an English plural's ending; other words stay, and what is wrongly cut is cut everywhere alike.

    Source: Harman 1991, How effective is suffixing?, the S stemmer,
    https://doi.org/10.1002/(SICI)1097-4571(199101)42:1<7::AID-ASI2>3.0.CO;2-P
    """
    if len(word) < 4 or not word.isalpha():
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")):
        return word[:-1]
    return word
