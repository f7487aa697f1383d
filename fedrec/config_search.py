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
    person: Weight = Field(0.5, description="weight of a person's own score, where there is one")
    engine_s: Positive = Field(2.0, description="seconds that a search engine of the shop's own may take for a step")
    engine_rest_s: Positive = Field(30.0, description="seconds for which an engine that failed is not asked again")


class QueryTrainingConfig(Section):
    """How search is trained on (query, chosen item) events."""

    rank: Count = Field(8, description="of the turn of a query's vector")
    seed: int = Field(0, ge=0, description="of where training starts, of the negatives and of who is held out; public")
    events: Count = Field(8, description="of a person that count, at most; the latest")
    hits_by_words: Count = Field(50, description="best hits by words among a query's candidates")
    hits_by_meaning: Count = Field(50, description="best hits by meaning among a query's candidates")
    negatives: Count = Field(128, description="uniform items of the catalogue among the candidates, the same for all")
    sharpness: Positive = Field(5.0, description="what a mixed score is multiplied with to become a logit")
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="share of the people who judge an epoch")
    epochs: Count = Field(50, description="passes over the others, at most")
    patience: Count = Field(5, description="passes in a row without a better one, after which training ends")
    people_at_once: Count = Field(16, description="people of one step")
    mix_learning_rate: Positive = Field(0.03, description="of Adam, for the weights of words and meaning")
    turn_learning_rate: Positive = Field(0.0005, description="of Adam, for the turn of a query's vector")
