"""What sections of the configuration are made of: a frozen tree that knows no other keys, and bounded numbers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Window = Annotated[int, Field(ge=1, le=4_096)]


class Section(BaseModel):
    """A part of ``Config``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
