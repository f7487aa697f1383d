"""Events, catalogue, histories, splits and partitions."""

from pathlib import Path

import polars as pl

from fedrec.config import DataConfig
from fedrec.data.bundled import load_bundled
from fedrec.data.catalogue import Catalogue, read_catalogue, refuse_unknown_items
from fedrec.data.events import read_events
from fedrec.data.rules import RuleCount
from fedrec.errors import ConfigError

__all__ = ["load", "load_catalogue"]


def load(config: DataConfig) -> tuple[pl.DataFrame, Catalogue, list[RuleCount]]:
    """The events and catalogue a run works on: the bundled set unless files are named.

    Returns:
        Events, catalogue, and what cleaning dropped (the bundled set alone is cleaned here).

    Raises:
        ConfigError: only one of events and catalogue is named, or columns are mapped for the bundled set.
        DataError: a file cannot be used as it is.
    """
    if config.events is None and config.catalogue is None:
        if config.event_columns or config.catalogue_columns:
            raise ConfigError("data.event_columns and data.catalogue_columns need data.events and data.catalogue")
        return load_bundled()
    if config.events is None or config.catalogue is None:
        absent = "data.catalogue (--catalogue)" if config.catalogue is None else "data.events (--data)"
        raise ConfigError(f"{absent} is missing: events and catalogue are given together, or neither")
    events = read_events(Path(config.events), columns=config.event_columns)
    catalogue = read_catalogue(Path(config.catalogue), columns=config.catalogue_columns)
    refuse_unknown_items(events, catalogue, source=str(config.events))
    return events, catalogue, []


def load_catalogue(config: DataConfig) -> Catalogue:
    """The catalogue a run works on, as ``load`` gives it, without reading a named file of events.

    Raises:
        ConfigError: columns are mapped for the bundled set.
        DataError: the file cannot be used as it is.
    """
    if config.catalogue is None:
        return load(config)[1]
    return read_catalogue(Path(config.catalogue), columns=config.catalogue_columns)
