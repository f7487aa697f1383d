"""An impression as a click head reads it: which slot each of its fields falls into, by rules that are public.

A category is hashed, a number is binned on a scale of doublings. Nobody's data decide where a bin ends or a hash falls,
so reading an impression tells nothing of anybody else's.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fedrec.errors import ConfigError, DataError

Columns = Mapping[str, Sequence[object]]


@dataclass(frozen=True)
class ClickSpec:
    """Which fields are read, and how. Public, and the same wherever a head is used.

    Attributes:
        numbers: names of fields that hold numbers: a score's parts, a price, an hour, a position.
        categories: names of fields that hold words or ids: a device, a brand, a campaign.
        number_bins: doublings on each side of 0 that are told apart, >= 1; what is beyond shares the last.
        buckets: slots of each category, >= 1.

    Raises:
        ConfigError: no field, a field twice, or a size below 1.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    number_bins: int
    buckets: int

    def __post_init__(self) -> None:
        names = (*self.numbers, *self.categories)
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"fields {list(names)}: expected at least one, and each once")
        for name in ("number_bins", "buckets"):
            if type(size := getattr(self, name)) is not int or size < 1:
                raise ConfigError(f"{name}={size!r}: expected a whole number >= 1")

    @property
    def fields(self) -> int:
        """F, how many slots an impression has."""
        return len(self.numbers) + len(self.categories)

    @property
    def slots(self) -> int:
        """S, of all fields together; those of a field are its own."""
        return len(self.numbers) * self._number_slots + len(self.categories) * self.buckets

    @property
    def _number_slots(self) -> int:
        return 2 * self.number_bins + 1  # the last is for a number that is missing

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex: equal exactly when impressions are read alike."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def read(self, columns: Columns) -> np.ndarray:
        """Turn impressions into slots.

        Args:
            columns: one list a field, all of the same length N. A number or None; for a category any value, of which
                the text counts, or None. Sensitive where the impressions are.

        Returns:
            (N, F) int64, each in [0, S); no two fields share a slot.

        Raises:
            DataError: a field is missing, is of another length, or holds no number where one is expected.
        """
        names = (*self.numbers, *self.categories)
        if missing := [name for name in names if name not in columns]:
            raise DataError(f"impressions: no column {missing[0]!r}; the head reads {list(names)}")
        if len({len(columns[name]) for name in names}) > 1:
            raise DataError("impressions: columns of different lengths; expected one value an impression in each")
        read = [_number_slots(name, columns[name], bins=self.number_bins) for name in self.numbers]
        read += [_category_slots(name, columns[name], buckets=self.buckets) for name in self.categories]
        sizes = [self._number_slots] * len(self.numbers) + [self.buckets] * len(self.categories)
        return np.stack(read, axis=1) + np.cumsum([0, *sizes[:-1]])


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


def _category_slots(name: str, values: Sequence[object], *, buckets: int) -> np.ndarray:
    """A hash of field and value, (N,) in [0, buckets); each distinct value is hashed once."""
    slots = {value: _hash(name, value) % buckets for value in set(values)}
    return np.array([slots[value] for value in values], dtype=np.int64)


def _hash(name: str, value: object) -> int:
    text = json.dumps([name, None if value is None else str(value)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


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
    def by_person(cls, people: Sequence[object], slots: np.ndarray, clicked: np.ndarray) -> "Impressions":
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
