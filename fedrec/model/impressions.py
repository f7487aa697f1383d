"""An impression as a click head reads it: which slot each of its fields falls into, by rules that are public.

A number is binned on a scale of doublings. A category has slots for the values that public people have met often
enough, and one for all others. Clients' people decide nothing of this, so reading one tells nothing of another.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, Self

import numpy as np

from fedrec.errors import ConfigError, DataError

Columns = Mapping[str, Sequence[object]]


class Category(NamedTuple):
    """A field of words or ids, and the values with slots of their own; public."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class ClickSpec:
    """Which fields are read, and how. Public, and the same wherever a head is used. See ``from_public``.

    Attributes:
        numbers: names of fields that hold numbers: a score's parts, a price, an hour, a position.
        number_bins: doublings on each side of 0 that are told apart, >= 1; what is beyond shares the last.
        categories: fields that hold words or ids: a device, a brand, a campaign.

    Raises:
        ConfigError: no field, a field or a value twice, or no bins.
    """

    numbers: tuple[str, ...]
    number_bins: int
    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ConfigError(f"fields {list(self.names)}: expected at least one, and each once")
        if type(self.number_bins) is not int or self.number_bins < 1:
            raise ConfigError(f"number_bins={self.number_bins!r}: expected a whole number >= 1")
        for name, values in self.categories:
            if len(set(values)) < len(values):
                raise ConfigError(f"field {name!r}: a value is there twice; expected each once")

    @classmethod
    def from_public(
        cls,
        columns: Columns,
        *,
        numbers: Sequence[str],
        categories: Sequence[str],
        number_bins: int,
        least_seen: int,
    ) -> Self:
        """Choose the values that get slots, from impressions of public people.

        Args:
            columns: as ``read`` takes them; of public people alone.
            numbers, categories: names of fields.
            number_bins: as the attribute.
            least_seen: impressions with a value, from which it has a slot of its own, >= 1.

        Raises:
            ConfigError: as the class, or ``least_seen`` is below 1.
            DataError: a field is missing.
        """
        if least_seen < 1:
            raise ConfigError(f"least_seen={least_seen}: expected >= 1")
        chosen = []
        for name in categories:
            seen = Counter(map(_text, _of(columns, name)))
            chosen.append(Category(name, tuple(sorted(value for value, count in seen.items() if count >= least_seen))))
        return cls(tuple(numbers), number_bins, tuple(chosen))

    @property
    def names(self) -> tuple[str, ...]:
        """Of all fields, numbers first."""
        return (*self.numbers, *(category.name for category in self.categories))

    @property
    def slots(self) -> int:
        """S, of all fields together; those of a field are its own."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        """Slots of each field: the last of a number is for one that is missing, of a category for all other values."""
        sizes = [2 * self.number_bins + 1] * len(self.numbers)
        return sizes + [len(category.values) + 1 for category in self.categories]

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex: equal exactly when impressions are read alike."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def read(self, columns: Columns) -> np.ndarray:
        """Turn impressions into slots.

        Args:
            columns: one list a field, all of the same length N. A number or None; for a category any value, of which
                the text counts, None as if it were empty. Sensitive where the impressions are.

        Returns:
            (N, F) int64, each in [0, S); no two fields share a slot.

        Raises:
            DataError: a field is missing, is of another length, or holds no number where one is expected.
        """
        if len({len(_of(columns, name)) for name in self.names}) > 1:
            raise DataError("impressions: columns of different lengths; expected one value an impression in each")
        read = [_number_slots(name, columns[name], bins=self.number_bins) for name in self.numbers]
        read += [_category_slots(columns[category.name], category.values) for category in self.categories]
        return np.stack(read, axis=1) + np.cumsum([0, *self._sizes[:-1]])


def _of(columns: Columns, name: str) -> Sequence[object]:
    if name not in columns:
        raise DataError(f"impressions: no column {name!r}, which the head reads")
    return columns[name]


def _number_slots(name: str, values: Sequence[object], *, bins: int) -> np.ndarray:
    """How often 1 + |x| doubles, below 0 for a negative x: (N,) in [0, 2 * bins]."""
    try:
        numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"impressions: column {name!r}: expected numbers, or nothing where there is none") from None
    is_there = ~np.isnan(numbers)
    with np.errstate(invalid="ignore"):
        doublings = np.floor(np.sign(numbers) * np.log2(1.0 + np.abs(numbers)))
    slots = np.clip(np.where(is_there, doublings, 0.0), -bins, bins - 1) + bins
    return np.where(is_there, slots, 2 * bins).astype(np.int64)


def _category_slots(values: Sequence[object], known: Sequence[str]) -> np.ndarray:
    """The place of each value among the known ones, (N,); the last for any other."""
    places = {value: place for place, value in enumerate(known)}
    return np.array([places.get(_text(value), len(known)) for value in values], dtype=np.int64)


def _text(value: object) -> str:
    return "" if value is None else str(value)


@dataclass(frozen=True, eq=False)
class Impressions:
    """What was shown to N people, E impressions in all, and what they clicked. Sensitive.

    Attributes:
        offsets: (N+1,) int64, from 0 to E; person i owns the slice ``offsets[i]:offsets[i+1]``.
        slots: (E, F) int64, as ``ClickSpec.read`` returns them.
        clicked: (E,) bool.

    Raises:
        DataError: they do not fit together.
    """

    offsets: np.ndarray
    slots: np.ndarray
    clicked: np.ndarray

    def __post_init__(self) -> None:
        ends_fit = len(self.offsets) > 0 and self.offsets[0] == 0 and self.offsets[-1] == len(self.slots)
        if not ends_fit or self.slots.ndim != 2 or self.clicked.shape != (len(self.slots),):
            raise DataError("impressions: offsets, slots and clicks do not fit together")
        if (np.diff(self.offsets) < 0).any():
            raise DataError("impressions: offsets decrease")

    @classmethod
    def by_person(cls, people: Sequence[object] | np.ndarray, slots: np.ndarray, clicked: np.ndarray) -> "Impressions":
        """Group impressions by whom they were shown to; people come in the order of their ids.

        Args:
            people: (E,) ids. Sensitive.
            slots, clicked: as the attributes, in any order of people.
        """
        _, person = np.unique(np.asarray(people), return_inverse=True)
        order = np.argsort(person, kind="stable")
        counts = np.bincount(person) if len(person) else np.zeros(0, np.int64)
        return cls(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), slots[order], clicked[order].astype(bool))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def subset(self, people: np.ndarray) -> "Impressions":
        """These people alone, in the order asked; ``people`` are indices (M,) in [0, N)."""
        starts, ends = self.offsets[:-1][people], self.offsets[1:][people]
        rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(a, b) for a, b in zip(starts, ends, strict=True))])
        offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
        return Impressions(offsets, self.slots[rows], self.clicked[rows])
