"""From a file as it came to events and a catalogue that training accepts, with every dropped row counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fedrec.config import BUNDLED
from fedrec.data.bundled import clean_bundled
from fedrec.data.catalogue import Catalogue, catalogue_from_events, clean_catalogue, write_catalogue
from fedrec.data.events import clean_events
from fedrec.data.rules import RuleCount
from fedrec.data.tables import write_atomically
from fedrec.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What is left of a data set, and what went.

    Attributes:
        source: the file, or ``bundled``.
        rows_read: before any rule.
        events: rows left, in file order; still with ``title`` where the source has one.
        catalogue: given, or made of the events' titles; None when there is neither.
        counts: rules over event rows, in the order applied.
        catalogue_counts: rules over catalogue rows.
        unknown_items: items of events that a given catalogue lacks, with their number of rows, most rows first.
    """

    source: str
    rows_read: int
    events: pl.DataFrame
    catalogue: Catalogue | None
    counts: list[RuleCount]
    catalogue_counts: list[RuleCount]
    unknown_items: dict[str, int]


def clean(
    path: Path | None,
    *,
    columns: Mapping[str, str],
    catalogue: Path | None = None,
    catalogue_columns: Mapping[str, str],
) -> Cleaned:
    """Read and clean a data set.

    Args:
        path: the events; the bundled set when None.
        columns: our event field = the file's column.
        catalogue: the items; made of the events' ``title`` when None and there is one.
        catalogue_columns: our item field = the file's column.

    Raises:
        ConfigError: an unknown field is mapped, or something is mapped where there is no file for it.
        DataError: a file cannot be read, a column is missing, or no row is left.
    """
    if path is None and (columns or catalogue is not None):
        raise ConfigError("the bundled set has its own columns and catalogue; name a file to use --map or --catalogue")
    if catalogue is None and catalogue_columns:
        raise ConfigError("--map-catalogue needs --catalogue")
    events, counts = clean_bundled() if path is None else clean_events(path, columns=columns)
    items: Catalogue | None = None
    catalogue_counts: list[RuleCount] = []
    if catalogue is not None:
        items, catalogue_counts = clean_catalogue(catalogue, columns=catalogue_columns)
    elif "title" in events.columns:
        items = catalogue_from_events(events)
    rows_read = counts[0].kept + counts[0].dropped
    unknown: dict[str, int] = {}
    if items is not None:
        events, count, unknown = drop_unknown_items(events, items)
        counts = [*counts, count] if catalogue is not None else counts
    if events.height == 0:
        raise DataError(f"{path}: no row is left: not one item is in the catalogue {catalogue}")
    return Cleaned(str(path or BUNDLED), rows_read, events, items, counts, catalogue_counts, unknown)


def write_prepared(cleaned: Cleaned, folder: Path) -> tuple[Path, Path]:
    """Write ``events.parquet`` and ``catalogue.parquet``, which ``fedrec simulate`` reads without any mapping.

    Returns:
        The two paths.

    Raises:
        DataError: no titles are known, or a file cannot be written; nothing half-written is left.
    """
    if cleaned.catalogue is None:
        raise DataError(f"{cleaned.source}: items have no titles; give --catalogue FILE or --map title=COLUMN")
    events = cleaned.events.drop("title", strict=False)
    catalogue_path, events_path = folder / "catalogue.parquet", folder / "events.parquet"
    write_catalogue(cleaned.catalogue, catalogue_path)
    write_atomically(events_path, events.write_parquet)
    return events_path, catalogue_path


def drop_unknown_items(events: pl.DataFrame, catalogue: Catalogue) -> tuple[pl.DataFrame, RuleCount, dict[str, int]]:
    """Rows whose item is in the catalogue; the count; and the other items with their rows, most rows first."""
    is_known = pl.col("item_id").is_in(list(catalogue.item_ids))
    unknown = events.filter(~is_known)["item_id"].value_counts().sort(["count", "item_id"], descending=[True, False])
    kept = events.filter(is_known)
    count = RuleCount("unknown_item", "item without a row in the catalogue", events.height - kept.height, kept.height)
    return kept, count, dict(unknown.iter_rows())
