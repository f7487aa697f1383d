"""How a published model is served. No part of a run's ``Config``: it changes nothing that was agreed on or trained."""

from typing import Annotated

from pydantic import Field

from fedrec.config_section import Count, Positive, Section


class ServingConfig(Section):
    """What is answered where a request does not say otherwise."""

    k: Count = Field(10, description="items in a list")
    diversity: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="0: by score alone; 1: as unlike one another as can be"
    )
    pool: Count = Field(100, description="best items that a diverse list is chosen from")


class RecallConfig(Section):
    """How many items are compared with a person's state, where a catalogue is too large to compare whole."""

    exact_up_to: Count = Field(200_000, description="largest catalogue of which every item is compared")
    compared: Count = Field(
        200_000, description="items of the nearest lists that are compared by their codes, at least"
    )
    nearest: Count = Field(500, description="of those the best, compared exactly")
    liked: Count = Field(1_000, description="items that are best liked by all, compared exactly")


class HttpConfig(Section):
    """How much the service takes at once, and how often it looks around."""

    workers: Count = Field(2, description="requests that are computed at the same time; one thread each")
    body_bytes: Count = Field(65_536, description="longest body of a request")
    body_s: Positive = Field(10.0, description="seconds in which a body must have come")
    requests_at_once: Count = Field(64, description="requests under way, beyond which one is told to come back")
    requests_per_s: Positive = Field(500.0, description="of one token, lasting")
    burst: Count = Field(1_000, description="of one token, at once")
    queries_per_day: Count = Field(1_000_000, description="lists, searches and explanations of one token")
    past: Count = Field(1_000, description="latest events of a person in the store that are read")
    memory_s: Positive = Field(300.0, description="seconds after which the memory is counted anew")
    watch_s: Positive = Field(2.0, description="seconds between two looks at which run to serve, and who is gone")
