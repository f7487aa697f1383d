"""Do probabilities come true? How far they are off, and the two numbers that put most of that right."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from fedrec.errors import ConfigError, DataError

BINS = 15  # of equal mass
_NEWTON_STEPS = 100
_TOLERANCE = 1e-10
_FLAT = 1e-9  # of the likelihood: scores that set clicks apart exactly have no best slope


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predictions in bins from the lowest to the highest: what was said, and what came true.

    Attributes:
        count: (K,) int64, predictions in each bin; the bins differ by one at most.
        said: (K,) mean probability.
        came_true: (K,) share of clicks.
    """

    count: np.ndarray
    said: np.ndarray
    came_true: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance between what was said and what came true, in [0, 1].

        Source: Naeini et al. 2015, section 2, https://doi.org/10.1609/aaai.v29i1.9602, with bins of equal mass as
        in Nixon et al. 2019, section 4, https://arxiv.org/abs/1904.01685
        """
        return float(np.average(np.abs(self.said - self.came_true), weights=self.count))


def reliability(probabilities: np.ndarray, clicked: np.ndarray, *, bins: int = BINS) -> Reliability:
    """Sort predictions into bins of equal mass; ties stay in the order given.

    Args:
        probabilities: (N,), each in [0, 1]; N >= 1.
        clicked: (N,) true or false.
        bins: K >= 1; fewer where there are fewer predictions.

    Raises:
        ConfigError: ``bins`` is below 1.
        DataError: nothing was predicted, or the two do not fit together.
    """
    if bins < 1:
        raise ConfigError(f"bins={bins}: expected >= 1")
    _check(probabilities, clicked)
    order = np.argsort(probabilities, kind="stable")
    groups = np.array_split(order, min(bins, len(order)))
    return Reliability(
        np.array([len(group) for group in groups]),
        np.array([probabilities[group].mean() for group in groups]),
        np.array([clicked[group].mean() for group in groups]),
    )


def error_by_chance(
    probabilities: np.ndarray, *, rng: np.random.Generator, bins: int = BINS, draws: int = 1_000
) -> float:
    """Return the mean calibration error that these probabilities would have if each were exactly right.

    Even then the clicks of a bin scatter about its mean, the more so the fewer there are: of 391 impressions no head
    can be expected below this, and an error near it is as good as none.

    Source: the consistency resampling of Bröcker and Smith 2007, section 3, https://doi.org/10.1175/WAF993.1
    """
    chances = (rng.random((draws, len(probabilities))) < probabilities).astype(np.float64)
    return float(np.mean([reliability(probabilities, clicked, bins=bins).error for clicked in chances]))


def log_loss(probabilities: np.ndarray, clicked: np.ndarray) -> float:
    """Mean cross-entropy in nats; infinite when something impossible happened."""
    _check(probabilities, clicked)
    with np.errstate(divide="ignore"):
        return float(-np.mean(np.log(np.where(clicked, probabilities, 1.0 - probabilities))))


def area_under_curve(scores: np.ndarray, clicked: np.ndarray) -> float:
    """Chance that a clicked one scores above one that was not, ties counting half, in [0, 1].

    Raises:
        DataError: all or none are clicked, or the two do not fit together.

    Source: Hanley and McNeil 1982, section 3 (the Wilcoxon statistic), https://doi.org/10.1148/radiology.143.1.7063747
    """
    _check(scores, clicked)
    positives = int(np.count_nonzero(clicked))
    if positives in (0, len(clicked)):
        raise DataError("clicks: all or none; expected some of each")
    _, where, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[where]  # the mean rank of those that tie, from 1
    wins = ranks[clicked.astype(bool)].sum() - positives * (positives + 1) / 2.0
    return float(wins / (positives * (len(clicked) - positives)))


@dataclass(frozen=True)
class Calibration:
    """Probability = sigmoid(slope * logit + intercept); order never changes, as the slope is above 0.

    Raises:
        ConfigError: a slope that is not above 0, or a number that is not finite.

    Source: Platt 1999, section 2.2, "Probabilistic outputs for support vector machines"
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.slope > 0 and math.isfinite(self.intercept)):
            raise ConfigError(f"calibration slope={self.slope}, intercept={self.intercept}: expected finite, slope > 0")

    @classmethod
    def fit(cls, logits: np.ndarray, clicked: np.ndarray) -> Self:
        """Choose both numbers by maximum likelihood (Newton's method), on impressions that trained nothing.

        Args:
            logits: (N,) as learned.
            clicked: (N,) true or false.

        Raises:
            DataError: all or none are clicked, or the logits do not rise with the clicks or set them apart exactly:
                there is no best slope then.
        """
        _check(logits, clicked)
        if clicked.all() or not clicked.any():
            raise DataError("calibration: all or none are clicked; expected some of each")
        middle, spread = float(logits.mean()), float(logits.std())
        if spread > 0 and (found := _fitted((logits - middle) / spread, clicked)) is not None:
            slope = found[0] / spread
            return cls(slope, found[1] - slope * middle)
        raise DataError("calibration: no slope fits; bring more impressions, or a head that has learned something")

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities, (N,) in (0, 1)."""
        return np.asarray(np.exp(-np.logaddexp(0.0, -(self.slope * logits + self.intercept))))


def _fitted(scores: np.ndarray, clicked: np.ndarray) -> tuple[float, float] | None:
    """Slope and intercept of the greatest likelihood, for standardised scores; None where no slope > 0 is best."""
    design = np.stack([scores, np.ones(len(scores))], axis=1).astype(np.float64)  # (N, 2)
    found = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        said = np.exp(-np.logaddexp(0.0, -(design @ found)))
        curvature = design.T @ (design * (said * (1.0 - said))[:, None])
        if np.linalg.det(curvature) <= _FLAT:
            return None
        change = np.clip(np.linalg.solve(curvature, design.T @ (clicked - said)), -1.0, 1.0)
        found = found + change
        if np.abs(change).max() < _TOLERANCE:
            return (float(found[0]), float(found[1])) if found[0] > 0 else None
    return None


def _check(predicted: np.ndarray, clicked: np.ndarray) -> None:
    if len(predicted) == 0 or predicted.shape != clicked.shape:
        raise DataError(f"{len(predicted)} predictions and {len(clicked)} clicks: expected as many, and at least one")
