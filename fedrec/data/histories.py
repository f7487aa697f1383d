"""One person, one record: everything they did at one place, in order of time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fedrec.data.catalogue import Catalogue, refuse_unknown_items
from fedrec.data.events import other_columns
from fedrec.data.tables import write_atomically
from fedrec.errors import DataError


@dataclass(frozen=True, eq=False)
class Histories:
    """Item sequences of N people, E events in all. Sensitive.

    Attributes:
        offsets: (N+1,) int64, from 0 to E; person i owns the slice ``offsets[i]:offsets[i+1]``.
        items: (E,) int32, positions in the catalogue.
        timestamps: (E,) int64, non-decreasing inside a person.
    """

    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray

    def __post_init__(self) -> None:
        events = len(self.items)
        ends_fit = len(self.offsets) > 0 and self.offsets[0] == 0 and self.offsets[-1] == events
        if not ends_fit or len(self.timestamps) != events:
            raise DataError("histories: offsets, items and timestamps do not fit together")
        if (np.diff(self.offsets) < 0).any():
            raise DataError("histories: offsets decrease")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, events of each person."""
        return np.diff(self.offsets)

    def of(self, person: int) -> np.ndarray:
        """(length,) int32, the person's items, oldest first; a view."""
        return self.items[self.offsets[person] : self.offsets[person + 1]]

    def times(self, person: int) -> np.ndarray:
        """(length,) int64, the person's timestamps; a view."""
        return self.timestamps[self.offsets[person] : self.offsets[person + 1]]

    def subset(self, people: np.ndarray) -> "Histories":
        """These people alone, in the order asked.

        Args:
            people: (M,) person indices, each in [0, N).
        """
        return self._slices(self.offsets[:-1][people], self.offsets[1:][people])

    def latest(self, events: int) -> "Histories":
        """At most the last ``events`` of everyone, >= 1."""
        ends = self.offsets[1:]
        return self._slices(np.maximum(self.offsets[:-1], ends - events), ends)

    def without_repeats(self) -> "Histories":
        """Drop every event with the same item as the event just before it."""
        is_kept = np.ones(len(self.items), dtype=bool)
        is_kept[1:] = self.items[1:] != self.items[:-1]
        starts = self.offsets[:-1]
        is_kept[starts[starts < len(self.items)]] = True
        return self.where(is_kept)

    def where(self, is_kept: np.ndarray) -> "Histories":
        """The marked events of everyone; same people, same order.

        Args:
            is_kept: (E,) bool.
        """
        kept_before = np.concatenate([[0], np.cumsum(is_kept)])
        return Histories(kept_before[self.offsets].astype(np.int64), self.items[is_kept], self.timestamps[is_kept])

    def _slices(self, starts: np.ndarray, ends: np.ndarray) -> "Histories":
        lengths = ends - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Histories(offsets, self.items[rows], self.timestamps[rows])

    @classmethod
    def from_lists(cls, items: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None = None) -> "Histories":
        """From one list of items a person; times are positions 0, 1, 2, ... when absent."""
        times = [list(range(len(row))) for row in items] if times is None else times
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in items])]).astype(np.int64)
        flat_items = np.array([item for row in items for item in row], dtype=np.int32)
        return cls(offsets, flat_items, np.array([time for row in times for time in row], dtype=np.int64))

    def save(self, path: Path) -> None:
        """Write as safetensors, atomically.

        Raises:
            DataError: the file cannot be written.
        """
        arrays = {"offsets": self.offsets, "items": self.items, "timestamps": self.timestamps}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_atomically(path, lambda temporary: save_file(arrays, temporary))

    @classmethod
    def load(cls, path: Path) -> "Histories":
        """Read what ``save`` wrote.

        Raises:
            DataError: absent, truncated, or not histories.
        """
        try:
            arrays = load_file(path)
            return cls(
                arrays["offsets"].astype(np.int64),
                arrays["items"].astype(np.int32),
                arrays["timestamps"].astype(np.int64),
            )
        except (OSError, SafetensorError, KeyError, DataError) as error:
            raise DataError(f"{path}: cannot be read as histories: {error}") from None


def build_histories(
    events: pl.DataFrame, catalogue: Catalogue, *, min_events: int, merge_repeats: bool, max_history: int | None
) -> tuple[Histories, pl.DataFrame]:
    """Sort events by person and time, file order deciding between equal times.

    Args:
        events: as ``read_events`` gives them.
        catalogue: must hold every item.
        min_events: people with fewer events, counted after merging, are left out; >= 1.
        merge_repeats: drop an event whose item is that of the person's event just before it.
        max_history: events kept per person, the latest; all when None.

    Returns:
        Histories of the people sorted by ``user_id``, and one row a person in the same order: ``user_id`` and its
        most frequent value (of equals the smallest; null when it has none) of every other column of words or
        whole numbers.

    Raises:
        DataError: an item is not in the catalogue, or nobody has ``min_events`` events.
    """
    refuse_unknown_items(events, catalogue, source="events")
    ordered = events.sort(["user_id", "timestamp"], maintain_order=True)
    if merge_repeats:
        is_new = (pl.col("item_id") != pl.col("item_id").shift(1)) | (pl.col("user_id") != pl.col("user_id").shift(1))
        ordered = ordered.filter(is_new.fill_null(True))
    ordered = ordered.filter(pl.len().over("user_id") >= min_events)
    if ordered.height == 0:
        raise DataError(f"no person has {min_events} events or more; lower data.min_events or bring more data")
    items = ordered["item_id"].replace_strict(catalogue.index, return_dtype=pl.Int32).to_numpy()
    lengths = ordered.group_by("user_id", maintain_order=True).len()
    offsets = np.concatenate([[0], np.cumsum(lengths["len"].to_numpy())]).astype(np.int64)
    histories = Histories(offsets, items, ordered["timestamp"].to_numpy())
    people = _describe_people(ordered, lengths.select("user_id"))
    return histories if max_history is None else histories.latest(max_history), people


def _describe_people(events: pl.DataFrame, people: pl.DataFrame) -> pl.DataFrame:
    """Each person's most frequent value of every describing column."""
    for column in other_columns(events):
        favourites = (
            events.select("user_id", column)
            .drop_nulls()
            .group_by("user_id", column)
            .len()
            .sort(["user_id", "len", column], descending=[False, True, False])
            .unique("user_id", keep="first", maintain_order=True)
            .select("user_id", column)
        )
        people = people.join(favourites, on="user_id", how="left", maintain_order="left")
    return people
