"""What a person's own past takes out of a ranking: one rule for every row of a table and every round of a run."""

from enum import Enum

import numpy as np

from fedrec.config import DataConfig
from fedrec.data.histories import Histories
from fedrec.errors import DataError


class Masking(Enum):
    """Which items are not offered again."""

    NONE = "none"
    LAST = "last"  # the item just bought
    HISTORY = "history"  # everything the person took before

    def hidden(self, past: np.ndarray) -> np.ndarray:
        """The items to take out after ``past``, (L,) item indices, oldest first."""
        return {Masking.NONE: past[:0], Masking.LAST: past[-1:], Masking.HISTORY: past}[self]


def masking_of(data: DataConfig) -> Masking:
    """How the next event of a history is asked for; the loss, which looks at one window, masks the last item at most.

    The last item is masked where consecutive repeats were merged, for then it cannot be the next.
    """
    if data.mask_history:
        return Masking.HISTORY
    return Masking.LAST if data.merge_repeats else Masking.NONE


def masking_of_targets(data: DataConfig) -> Masking:
    """How held-out targets are asked for: as the next event is, but a basket may hold the last item again."""
    masking = masking_of(data)
    return Masking.NONE if data.split == "next-basket" and masking is Masking.LAST else masking


def refuse_repeats(histories: Histories) -> None:
    """Raise unless everybody took every item at most once, as masking whole histories supposes.

    Raises:
        DataError: somebody took an item twice.
    """
    person = np.repeat(np.arange(len(histories)), histories.lengths)
    pairs = np.stack([person, histories.items], axis=1)
    repeats = len(pairs) - len(np.unique(pairs, axis=0))
    if repeats:
        raise DataError(
            f"data.mask_history: {repeats} of {len(pairs)} events take an item that the person took before, and "
            "masking would make them impossible to predict; set it to false"
        )
