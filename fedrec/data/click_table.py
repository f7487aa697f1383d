"""Impressions as a table: what was shown to whom, under which circumstances, and whether it was clicked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fedrec.data.tables import read_table
from fedrec.errors import DataError
from fedrec.model.impressions import ClickSpec, Impressions

PERSON, CLICKED = "user_id", "clicked"
_TRUTHS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, eq=False)
class ClickTable:
    """What was shown to whom, E impressions. Sensitive, but for the people who are public.

    Attributes:
        people: (E,) ids.
        fields: (E rows), a column a field.
        clicked: (E,) bool.
    """

    people: np.ndarray
    fields: pl.DataFrame
    clicked: np.ndarray

    def where(self, is_kept: np.ndarray) -> "ClickTable":
        """The marked impressions, (E,) bool."""
        return ClickTable(self.people[is_kept], self.fields.filter(pl.Series(is_kept)), self.clicked[is_kept])

    def read(self, spec: ClickSpec) -> Impressions:
        """By person, in the order of their ids.

        Raises:
            DataError: a field that ``spec`` reads is not there.
        """
        columns = {name: self.fields[name].to_list() for name in spec.names if name in self.fields.columns}
        return Impressions.by_person(self.people, spec.read(columns), self.clicked)


def read_click_table(path: Path, *, numbers: Sequence[str], categories: Sequence[str]) -> ClickTable:
    """Read a CSV or Parquet file with a row an impression: ``user_id``, ``clicked`` (0 or 1), and the fields.

    Args:
        numbers: columns that hold numbers; an empty cell is a missing one.
        categories: columns that hold words or ids.

    Raises:
        DataError: the file cannot be read, lacks a column, or a cell is not what its column holds.
    """
    frame = read_table(path)
    for name in (PERSON, CLICKED, *numbers, *categories):
        if name not in frame.columns:
            raise DataError(f"{path}: no column {name!r}; the file has {', '.join(frame.columns[:20])}")
    clicked = [_TRUTHS.get(str(value).strip().lower()) for value in frame[CLICKED].to_list()]
    if None in clicked:
        raise DataError(f"{path}: row {clicked.index(None) + 1}: {CLICKED}: expected 0 or 1")
    people = frame[PERSON].cast(pl.String)
    if people.null_count():
        raise DataError(f"{path}: row {people.is_null().arg_true()[0] + 1}: {PERSON}: expected an id")
    fields = [_numbers(path, frame[name]) for name in numbers] + [frame[name].cast(pl.String) for name in categories]
    by_name = {column.name: column for column in fields}
    return ClickTable(people.to_numpy(), pl.DataFrame(by_name), np.array(clicked, dtype=bool))


def _numbers(path: Path, column: pl.Series) -> pl.Series:
    """A column as numbers, empty cells as none."""
    given = column.replace("", None) if column.dtype == pl.String else column
    found = given.cast(pl.Float64, strict=False)
    is_wrong = found.is_null() & given.is_not_null()
    if is_wrong.any():
        raise DataError(f"{path}: row {is_wrong.arg_true()[0] + 1}: {column.name}: expected a number, or an empty cell")
    return found
