"""What is learned from and what is asked, for every person."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from fedrec.data.histories import Histories
from fedrec.errors import ConfigError, DataError

FIRST_PLAUSIBLE_CLOCK = 10_000_000  # 1970-04-26; smaller timestamps are positions in a history


@dataclass(frozen=True, eq=False)
class Split:
    """The same people in the same order twice.

    Attributes:
        train: what the ranker may see.
        targets: what it should rank first; nobody is evaluated on an empty row.
    """

    train: Histories
    targets: Histories

    def __post_init__(self) -> None:
        if len(self.train) != len(self.targets):
            raise DataError(f"split: {len(self.train)} people to train on but {len(self.targets)} with targets")


def leave_last_out(histories: Histories) -> Split:
    """Hold out everyone's last event; a person with a single event keeps it and has no target.

    Comparable with papers, but it sees other people's future: use ``next_basket`` beside it.
    """
    is_target = np.zeros(len(histories.items), dtype=bool)
    is_target[histories.offsets[1:][histories.lengths > 1] - 1] = True
    return Split(histories.where(~is_target), histories.where(is_target))


def next_basket(histories: Histories, *, cut: int) -> Split:
    """Train on what happened before ``cut``; ask for the first basket after it.

    A basket is every event with the time of the person's first event at or after ``cut``; items count once.
    People without an event before ``cut`` have no target: nothing is known of them.

    Args:
        histories: with clock times, not positions.
        cut: seconds since 1970.
    """
    is_train = histories.timestamps < cut
    train = histories.where(is_train)
    person = np.repeat(np.arange(len(histories)), histories.lengths)
    first_later = histories.offsets[:-1] + train.lengths  # times do not decrease inside a person
    has_target = (train.lengths > 0) & (train.lengths < histories.lengths)
    basket_time = np.full(len(histories), -1, dtype=np.int64)
    basket_time[has_target] = histories.timestamps[first_later[has_target]]
    is_target = ~is_train & (histories.timestamps == basket_time[person])
    rows = np.flatnonzero(is_target)
    pairs = np.stack([person[rows], histories.items[rows].astype(np.int64)], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    is_target[:] = False
    is_target[rows[first]] = True
    return Split(train, histories.where(is_target))


def draw_cold_items(targets: Histories, *, items: int, share: float, seed: int) -> np.ndarray:
    """Draw items that nobody is to learn from, among those that somebody is asked for.

    Args:
        targets: what people are asked for.
        items: size of the catalogue, I.
        share: how many of the catalogue's items, in [0, 1); at least one item when > 0.
        seed: >= 0.

    Returns:
        (round(share * I),) item indices, sorted.

    Raises:
        ConfigError: so many items are nobody's target.
    """
    candidates = np.unique(targets.items)
    wanted = max(1, round(share * items)) if share > 0 else 0
    if wanted > len(candidates):
        raise ConfigError(
            f"data.cold_items={share}: {wanted} of {items} items, but people at clients are asked for "
            f"{len(candidates)} only; lower it"
        )
    return np.sort(np.random.default_rng(seed).choice(candidates, wanted, replace=False))


def hold_out_items(split: Split, cold: np.ndarray, *, merge_repeats: bool, masks_last: bool) -> Split:
    """Take every event of the cold items out of training; as targets they stay.

    Somebody of whom nothing is left has no target any more: nothing is known of them, as in ``next_basket``.

    Args:
        split: of everyone.
        cold: item indices.
        merge_repeats: drop an event that has become a repeat of the one now just before it.
        masks_last: the last training item is not offered, so whoever is now asked for it is not asked.
    """
    train = split.train.where(~np.isin(split.train.items, cold))
    train = train.without_repeats() if merge_repeats else train
    person = np.repeat(np.arange(len(train)), split.targets.lengths)
    is_asked = train.lengths[person] > 0
    if masks_last:
        last = np.append(train.items, -1)[train.offsets[1:] - 1]  # of nobody's where there is none: not asked anyway
        is_asked &= split.targets.items != last[person]
    return Split(train, split.targets.where(is_asked))


def time_cut(histories: Histories, *, date: str | None) -> int:
    """Where training ends, in seconds since 1970.

    Args:
        histories: with clock times.
        date: ISO date or date and time, UTC unless it says otherwise; where the last tenth of the events begins
            when None.

    Raises:
        ConfigError: ``date`` is not ISO, or nothing lies on one side of it.
        DataError: the timestamps are positions, so no cut is meaningful.
    """
    if histories.timestamps.max() < FIRST_PLAUSIBLE_CLOCK:
        raise DataError("timestamps are positions, not clock times: a next-basket means nothing; use leave-last-out")
    if date is None:
        return int(np.quantile(histories.timestamps, 0.9, method="lower"))
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        raise ConfigError(f"data.time_cut={date!r}: expected an ISO date such as 2011-11-11") from None
    cut = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if not histories.timestamps.min() < cut <= histories.timestamps.max():
        span = [datetime.fromtimestamp(int(edge), UTC).date().isoformat() for edge in _edges(histories)]
        raise ConfigError(f"data.time_cut={date!r}: expected inside the data's span, {span[0]} to {span[1]}")
    return cut


def _edges(histories: Histories) -> tuple[int, int]:
    """First and last time."""
    return int(histories.timestamps.min()), int(histories.timestamps.max())
