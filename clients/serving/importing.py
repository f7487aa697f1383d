"""A file of events into the store: all of it or nothing, and each event once however often the file is read."""

import hashlib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

import polars as pl

from clients.serving.events import Event
from clients.serving.store import Appended, EventStore
from fedrec.data.events import read_events
from fedrec.errors import DataError

_SAYS = ["user_id", "item_id", "timestamp", "event", "query"]  # what two rows may have in common and be two events
_ROWS = 10_000  # that are Python objects at a time


def import_events(
    store: EventStore,
    path: Path,
    *,
    columns: Mapping[str, str],
    kind: str,
    known_items: Container[str] | None = None,
) -> Appended:
    """Take in what a file holds, in one transaction.

    Rows that agree in every column count once, as in training. A file that was taken in before, or has grown since,
    adds what is new: a row is known by its ``event_id`` where it has one, or else by what it says.

    Args:
        path: as ``read_events`` reads it. Kept are ``user_id, item_id, timestamp``, and where there are any ``event``
            (the kind), ``query`` and ``event_id``.
        columns: our event field = the file's column.
        kind: of the events that name none.
        known_items: other items are refused; any item is taken when None.

    Raises:
        ConfigError: ``columns`` names an unknown field.
        DataError: names the file, the first bad row, from 1, and its field; nothing was taken in.
        RunError: the store could not be written; nothing was taken in.
    """
    table = read_events(path, columns=columns)
    is_first = table.select(pl.struct(pl.all()).is_first_distinct()).to_series()
    absent = [pl.lit(None, pl.String).alias(name) for name in (*_SAYS, "event_id") if name not in table.columns]
    rows = (
        table.with_columns(absent)
        .select(*_SAYS, pl.col("event_id").cast(pl.String))
        .with_row_index("row", offset=1)
        .filter(is_first)
        .with_columns(copy=pl.int_range(pl.len()).over(_SAYS))
    )
    try:
        return store.append_all(_events(rows, kind=kind), known_items=known_items)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _events(rows: pl.DataFrame, *, kind: str) -> Iterator[tuple[str, Event]]:
    """Each row's name and event."""
    for part in rows.iter_slices(_ROWS):
        for row, user_id, item_id, timestamp, event, query, event_id, copy in part.iter_rows():
            said = repr((user_id, item_id, timestamp, event, query, copy)).encode()
            known_by = event_id or hashlib.blake2b(said, digest_size=16).digest()
            yield f"row {row}", Event(user_id, item_id, timestamp, event or kind, query or None, known_by)
