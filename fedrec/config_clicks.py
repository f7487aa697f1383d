"""Settings of click prediction and of ads; no part of a run's ``Config``, which trains a ranker."""

from typing import Annotated, Literal

from pydantic import Field

from fedrec.config_section import Count, Fraction, Positive, Rate, Section


class ClicksConfig(Section):
    """How an impression is read, and how a federation learns from it. Chosen by cross-validation: docs/clicks.md."""

    number_bins: Count = Field(12, description="doublings of a number on each side of 0 that are told apart")
    least_seen: Count = Field(
        5, description="public impressions with a value of a category, from which it is told apart from the rest"
    )
    panel_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="people who are public: they say which values there are, and calibrate the head"
    )
    epsilon: Positive = Field(8.0, description="budget of one person at one client over the whole run")
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(1e-5, description="failure probability of the guarantee")
    trust: Literal["local", "distributed"] = Field(
        "local", description="who adds the noise: local: each client all of it; distributed: clients share it"
    )
    clip_norm: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="largest L2 norm of one person's gradient, which is never above 1"
    )
    sampling_rate: Rate = Field(1.0, description="probability that a person takes part in a step")
    rounds: Count = Field(60, description="rounds of the federation, one private step each")
    server_learning_rate: Positive = Field(0.15, description="Adam step size on the mean update")
    warmup_rounds: Annotated[int, Field(ge=0)] = Field(3, description="rounds over which the step size grows")
    ema: Fraction = Field(0.9, description="decay of the averaged head that is published")


class AdsConfig(Section):
    """How ads are shown where a request does not say otherwise."""

    places: Count = Field(3, description="ads shown at once")
    reserve: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.01, description="least price of a click, in the currency of the bids"
    )
