"""Settings of click prediction; a section of its own, as a run of ``fedrec simulate`` trains no such head."""

from typing import Annotated

from pydantic import Field

from fedrec.config_section import Count, Positive, Section


class ClicksConfig(Section):
    """How an impression is read, and how a federation learns from it. Chosen by cross-validation: docs/clicks.md."""

    number_bins: Count = Field(12, description="doublings of a number on each side of 0 that are told apart")
    buckets: Count = Field(16, description="slots that the values of a category are hashed into")
    clip_norm: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="largest L2 norm of one person's gradient, which is never above 1"
    )
    rounds: Count = Field(60, description="rounds of the federation, one private step each")
    server_learning_rate: Positive = Field(0.15, description="Adam step size on the mean update")
