"""Settings of the parts of the score that are counted and not trained; sections of ``fedrec.config.Config``."""

from typing import Annotated

from pydantic import Field

from fedrec.config_section import Count, Fraction, Positive, Rate, Section, Window


class PairsConfig(Section):
    """What follows what among public people: a part of the base and of every score; costs no privacy."""

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None,
        description="logits of the part; when absent fitted on the people kept to judge, 0 where none are or untrained",
    )
    window: Count = Field(3, description="events apart that still count as a pair")
    suggestions: Annotated[int, Field(ge=0)] = Field(
        10, description="best next items of the base after each item, listed besides the pairs that were seen"
    )
    sharpness: Positive = Field(30.0, description="how soon a pair's probability counts")
    recent: Window = Field(3, description="events of a history that are looked up")
    decay: Rate = Field(0.4, description="weight of a looked-up event relative to the next later one")
    shrinkage: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.2, description="pseudo-counts added to each row"
    )


class StatisticsConfig(Section):
    """Counts of clients' people, released once, with noise, before the first round; read like public pairs."""

    noise_share: Fraction | None = Field(
        None,
        description="of the budget, as 1/sigma^2, for this release; 0: no release; when absent by public figures: what "
        "earns most",
    )
    popularity_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="of the square of what one person can move, for items' popularity; the rest is for pairs"
    )
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="logits of the part; when absent fitted on the people kept to judge, 0 where none are"
    )
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        2.5, description="counts below so many standard deviations of their noise count for nothing"
    )
    shrinkage: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1.0, description="pseudo-counts added to each row, in people"
    )
