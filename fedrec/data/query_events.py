"""Who chose which item after which query: what search is trained on. As sensitive as histories are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.data.tables import read_table, take_fields
from fedrec.errors import DataError

FIELDS = ("user_id", "query", "item_id")


@dataclass(frozen=True)
class QueryEvents:
    """(query, chosen item) events of N people.

    Attributes:
        people: (V,) int64, ascending, a person's number from 0 to N - 1, each with at least one event.
        queries: V of them, as typed.
        items: (V,) int64, positions in the catalogue.
    """

    people: np.ndarray
    queries: tuple[str, ...]
    items: np.ndarray

    @property
    def persons(self) -> int:
        """N."""
        return int(self.people[-1]) + 1 if len(self.people) else 0

    def __len__(self) -> int:
        return len(self.items)


def read_query_events(path: Path, catalogue: Catalogue, *, columns: Mapping[str, str]) -> QueryEvents:
    """Read a file with a row an event: ``user_id``, ``query``, ``item_id``.

    Args:
        columns: our field = the file's column, for names that differ.

    Raises:
        ConfigError: ``columns`` names an unknown field.
        DataError: no such file, a column is missing, or no row can be used.
    """
    frame, _ = take_fields(read_table(path), FIELDS, required=FIELDS, columns=columns, path=path)
    events = query_events(frame, catalogue)
    if not len(events):
        raise DataError(f"{path}: no row has a query and an item of the catalogue")
    return events


def query_events(frame: pl.DataFrame, catalogue: Catalogue) -> QueryEvents:
    """Events from a table.

    Args:
        frame: with the columns ``FIELDS``, in any order of rows.
        catalogue: events of other items are left out.

    Returns:
        One event for each person, query and item, however often it happened; none without a query.
    """
    known = (
        frame.select(pl.col(name).cast(pl.String) for name in FIELDS)
        .drop_nulls()
        .with_columns(pl.col("query").str.strip_chars())
        .filter(pl.col("query") != "", pl.col("item_id").is_in(list(catalogue.item_ids)))
        .unique(maintain_order=True)
        .sort("user_id", maintain_order=True)
    )
    people = known["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    items = np.array([catalogue.index[item] for item in known["item_id"]], dtype=np.int64)
    return QueryEvents(people, tuple(known["query"]), items)
