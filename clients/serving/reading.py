"""From the store to what training and serving need, without those who said no."""

from collections.abc import Collection

import numpy as np
import polars as pl

from clients.serving.store import EventStore
from fedrec.data.catalogue import Catalogue
from fedrec.data.cleaning import drop_unknown_items
from fedrec.data.histories import Histories, build_histories
from fedrec.data.query_events import FIELDS, QueryEvents, query_events
from fedrec.errors import DataError

_COLUMNS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}


def read_histories(
    store: EventStore,
    catalogue: Catalogue,
    *,
    min_events: int,
    merge_repeats: bool,
    max_history: int | None,
    kinds: Collection[str] | None = None,
) -> tuple[Histories, tuple[str, ...]]:
    """Cut the store's events into histories, as a merchant's file is cut.

    Args:
        catalogue: events of other items are left out.
        min_events, merge_repeats, max_history: as ``build_histories``.
        kinds: of events; all when None.

    Returns:
        One row a person, and the people, sorted by ``user_id``; nobody who is forgotten or wants no training.

    Raises:
        DataError: nobody is left with enough events.
        RunError: the store cannot be read.
    """
    known, _, _ = drop_unknown_items(training_events(store, kinds=kinds), catalogue)
    if known.height == 0:
        raise DataError("the event store: no event that may be used for training has an item of the catalogue")
    histories, people = build_histories(
        known, catalogue, min_events=min_events, merge_repeats=merge_repeats, max_history=max_history
    )
    return histories, tuple(people["user_id"])


def training_events(store: EventStore, *, kinds: Collection[str] | None = None) -> pl.DataFrame:
    """The events of those who let us train, in the order appended, as of one moment.

    Args:
        kinds: of events; all when None.

    Returns:
        ``user_id`` str, ``item_id`` str, ``timestamp`` int64; as ``read_events`` gives them. Sensitive.

    Raises:
        RunError: the store cannot be read.
    """
    parts = [pl.DataFrame(rows, schema=_COLUMNS, orient="row") for rows in store.training_rows(kinds=kinds)]
    return pl.concat(parts) if parts else pl.DataFrame(schema=_COLUMNS)


def read_queries(store: EventStore, catalogue: Catalogue) -> QueryEvents:
    """What people chose after a query.

    Args:
        catalogue: events of other items are left out.

    Raises:
        DataError: there is nothing that search may be trained on.
        RunError: the store cannot be read.
    """
    rows = pl.DataFrame(store.query_rows(), schema=dict.fromkeys(FIELDS, pl.String), orient="row")
    events = query_events(rows, catalogue)
    if not len(events):
        raise DataError(
            "the event store: no event that may be used for training has a query and an item of the catalogue"
        )
    return events


def read_history(
    store: EventStore, user_id: str, catalogue: Catalogue, *, latest: int, kinds: Collection[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What a person may be ranked by: nothing when they want no ranking of their own, or are forgotten.

    Args:
        latest: events looked at, >= 1; those of items outside the catalogue are then left out.
        kinds: of events; all when None.

    Returns:
        (L,) int32, positions in the catalogue, oldest first, and (L,) int64, their times; L from 0 to ``latest``.
    """
    if not store.choice(user_id).personalized:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
    items, times = store.history(user_id, kinds=kinds, latest=latest)
    known = [(catalogue.index[item], time) for item, time in zip(items, times, strict=True) if item in catalogue.index]
    flat = np.array(known, dtype=np.int64).reshape(-1, 2)
    return flat[:, 0].astype(np.int32), flat[:, 1]
