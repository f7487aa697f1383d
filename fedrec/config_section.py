"""What sections of the configuration are made of: a frozen tree that knows no other keys, and bounded numbers."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedrec.errors import ConfigError

Rate = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Window = Annotated[int, Field(ge=1, le=4_096)]

# What pydantic calls a mistake, in our words; its ``ctx`` knows the bound.
_EXPECTED = {
    "greater_than": "> {gt:g}",
    "greater_than_equal": ">= {ge:g}",
    "less_than": "< {lt:g}",
    "less_than_equal": "<= {le:g}",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
}


class Section(BaseModel):
    """A part of ``Config``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of_flags(cls, **values: float | str) -> Self:
        """Settings of which some were given as flags of the same names.

        Raises:
            ConfigError: the first flag that is out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            flag = f"--{str(first['loc'][0]).replace('_', '-')}"
            words = _EXPECTED.get(first["type"])
            expected = f"expected {words.format(**first.get('ctx', {}))}" if words else first["msg"]
            raise ConfigError(f"{flag}={first['input']}: {expected}") from None
