"""From the updates that were admitted to the one that moves the adapter.

Under local trust whatever is chosen here is post-processing of updates that are private already: it costs no privacy.
Under the others the plain sum is what is private.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedrec.errors import ConfigError
from fedrec.privacy.trust import server_noise


class Sum(Protocol):
    """Takes in one admitted reply after the other."""

    def add(self, update: np.ndarray, *, weight: float) -> None:
        """Take in one reply, (P,) float64, of finite numbers, from a client of this public weight."""

    def mean(self) -> np.ndarray:
        """What all of them come to, (P,) float64; at least one must have been added."""


class RunningMean:
    """The mean, weighted or not; one reply at a time is in memory, however many there are."""

    def __init__(self, parameters: int, *, weighted: bool = False, noise: np.ndarray | None = None) -> None:
        """``noise``, (P,), belongs to the sum from its start, so that there is none without it."""
        self._total = np.zeros(parameters) if noise is None else noise.copy()
        self._weight = 0.0
        self._weighted = weighted

    def add(self, update: np.ndarray, *, weight: float) -> None:
        counts = weight if self._weighted else 1.0
        self._total += counts * update
        self._weight += counts

    def mean(self) -> np.ndarray:
        return self._total / self._weight


class TrimmedMean:
    """In each coordinate, the mean of what is left without the largest and the smallest share.

    All replies of a round are in memory, as float32, which is what they came as. Their order and their weights have
    no influence.

    Source: Yin et al. 2018, Definition 2 (coordinate-wise trimmed mean), https://arxiv.org/abs/1803.01498. There the
    share of the replies is a whole number; here it is rounded up, so that a small round is never left without.
    """

    def __init__(self, trim: float) -> None:
        self._trim = trim
        self._updates: list[np.ndarray] = []

    def add(self, update: np.ndarray, *, weight: float) -> None:
        self._updates.append(update.astype(np.float32))

    def mean(self) -> np.ndarray:
        count = len(self._updates)
        cut = min(math.ceil(round(self._trim * count, 9)), (count - 1) // 2)
        kept = np.sort(np.stack(self._updates), axis=0)[cut : count - cut]  # (n - 2 cut, P)
        return np.asarray(kept.mean(axis=0, dtype=np.float64))


@dataclass(frozen=True)
class Averaging:
    """How updates become one. Public constants.

    Attributes:
        trim: share of the replies that is cut at each end of each coordinate, in (0, 0.5); None for the mean of all.
        weighted: by the public weights that clients were enrolled with, and not all alike.
        noise_std: of the noise on the sum under central trust, in units of an update; 0 where clients bring their own.

    Raises:
        ConfigError: trimmed and weighted: what share of the weight a liar may hold would no longer follow from the
            number of liars; or noise on anything but the plain sum.
    """

    trim: float | None = None
    weighted: bool = False
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        if self.trim is not None and not 0 < self.trim < 0.5:
            raise ConfigError(f"trim={self.trim}: expected more than 0 and less than 0.5; set federation.trim")
        if self.trim is not None and self.weighted:
            raise ConfigError("a trimmed mean has no weights; set federation.weights = uniform, or aggregation = mean")

        if self.noise_std and (self.trim is not None or self.weighted):
            raise ConfigError("noise belongs on the plain sum; set federation.weights = uniform, aggregation = mean")

    def start(self, parameters: int) -> Sum:
        """Return the sum of no vectors (P,), with the round's noise in it where the server adds it.

        A round that a crash cut short begins again here and draws fresh noise. The sum with the earlier noise went
        with the process: only what a checkpoint holds is ever published, and a checkpoint's round is not run again.
        A log line with the measures of a round may come before its checkpoint.
        """
        if self.trim is not None:
            return TrimmedMean(self.trim)
        return RunningMean(parameters, weighted=self.weighted, noise=server_noise(self.noise_std, parameters))
