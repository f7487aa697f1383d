"""Settings of search: a shop's own, no part of what a federation agrees on, and so in no run's ``Config``."""

from typing import Annotated

from pydantic import Field

from fedrec.config_section import Count, Positive, Section

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SearchConfig(Section):
    """How a query is read, and how much each way of finding a product counts."""

    longest_query: Count = Field(200, description="characters of a query that are read; the rest is cut off")
    most_words: Count = Field(16, description="words of a query that are read")
    title_weight: Positive = Field(3.0, description="BM25 weight of a word in the title")
    brand_weight: Positive = Field(2.0, description="BM25 weight of a word in the brand")
    category_weight: Positive = Field(2.0, description="BM25 weight of a word in the category")
    description_weight: Positive = Field(1.0, description="BM25 weight of a word in the description")
    enough: Count = Field(20, description="hits for a strict reading of a query, below which a looser one is added")
    spellings: Count = Field(3, description="nearest known words that stand for an unknown one, at most")
    word_hits: Count = Field(1_000, description="hits by words, at most, that are mixed with the other parts")
    meaning_hits: Count = Field(200, description="hits by meaning, at most, that are mixed with the other parts")
    words: Weight = Field(0.25, description="weight of BM25 beside the meaning that a language model sees")
    words_beside_hashing: Weight = Field(0.8, description="weight of BM25 beside the built-in encoder")
    meaning: Weight = Field(1.0, description="weight of the text encoder's similarity")
    person: Weight = Field(0.3, description="weight of a person's own score, where there is one")
