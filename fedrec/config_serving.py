"""How a published model is served. No part of a run's ``Config``: it changes nothing that was agreed on or trained."""

from typing import Annotated

from pydantic import Field

from fedrec.config_section import Count, Section


class ServingConfig(Section):
    """What is answered where a request does not say otherwise."""

    k: Count = Field(10, description="items in a list")
    diversity: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="0: by score alone; 1: as unlike one another as can be"
    )
    pool: Count = Field(100, description="best items that a diverse list is chosen from")
