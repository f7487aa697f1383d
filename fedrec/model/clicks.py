"""The probability that a person clicks or buys what is shown: logistic regression over the slots of an impression.

A bias and one weight a slot, about a thousand numbers. An impression is a vector of F + 1 ones, divided by their norm;
so the gradient of one impression is never longer than |p - y| < 1, and neither is a person's mean over theirs.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedrec.errors import ConfigError, RunError
from fedrec.evaluation.calibration import Calibration
from fedrec.model.impressions import Category, ClickSpec, Impressions
from fedrec.runfolder import write_arrays
from fedrec.schema import AdapterSchema, Arrays, ArraySpec

FORMAT = "fedrec click head 1"
AS_LEARNED = Calibration(slope=1.0, intercept=0.0)


def click_schema(spec: ClickSpec) -> AdapterSchema:
    """Names and shapes of what is learned: P = S + 1 numbers."""
    return (ArraySpec("clicks.bias", (1,)), ArraySpec("clicks.weights", (spec.slots,)))


def start_arrays(spec: ClickSpec, *, click_rate: float) -> Arrays:
    """Return a head that gives every impression the same probability.

    Args:
        click_rate: of the public people, or a guess, in (0, 1).
    """
    bias = math.log(click_rate / (1.0 - click_rate)) * math.sqrt(len(spec.names) + 1)
    return {"clicks.bias": np.array([bias], np.float32), "clicks.weights": np.zeros(spec.slots, np.float32)}


def click_logits(learned: Arrays, slots: np.ndarray) -> np.ndarray:
    """Return the log-odds of a click on each impression, (E,) float64, before calibration."""
    weights = learned["clicks.weights"].astype(np.float64)[slots]  # (E, F)
    return np.asarray((learned["clicks.bias"].astype(np.float64) + weights.sum(axis=1)) / _norm(slots))


def person_gradients(learned: Arrays, impressions: Impressions) -> Tensor:
    """Return the gradient of each person's loss, in closed form.

    A person's loss is the mean cross-entropy of their impressions, whose gradient is the mean of (p - y) x.

    Args:
        learned: where the gradient is taken.
        impressions: of these people alone. Sensitive.

    Returns:
        (N, S + 1), float32: bias, then weights. Each row is at most 1 long; zeros for who was shown nothing.
    """
    parameters = len(learned["clicks.weights"]) + 1
    people = np.repeat(np.arange(len(impressions)), np.diff(impressions.offsets))  # (E,)
    shown = np.diff(impressions.offsets)[people]
    residuals = (_sigmoid(click_logits(learned, impressions.slots)) - impressions.clicked) / shown
    values = np.repeat(residuals[:, None] / _norm(impressions.slots), impressions.slots.shape[1] + 1, axis=1)
    places = np.concatenate([np.zeros((len(people), 1), np.int64), impressions.slots + 1], axis=1)  # (E, F + 1)
    flat = (people[:, None] * parameters + places).ravel()
    rows = np.bincount(flat, values.ravel(), minlength=len(impressions) * parameters)
    return torch.from_numpy(rows.reshape(len(impressions), parameters)).float()


@dataclass(frozen=True, eq=False)
class ClickHead:
    """A trained head. Private where what it was trained under is.

    Attributes:
        spec: how impressions are read.
        learned: bias and weights by name.
        calibration: from what was learned to probabilities that come true.
    """

    spec: ClickSpec
    learned: Arrays
    calibration: Calibration = AS_LEARNED

    def logits(self, slots: np.ndarray) -> np.ndarray:
        """Log-odds of a click before calibration, (E,), for slots (E, F)."""
        return click_logits(self.learned, slots)

    def probabilities(self, slots: np.ndarray) -> np.ndarray:
        """Calibrated probability of a click, (E,) in (0, 1), for slots (E, F)."""
        return self.calibration.apply(self.logits(slots))

    def calibrated(self, slots: np.ndarray, clicked: np.ndarray) -> "ClickHead":
        """The same head, calibrated on public impressions; of anybody else's this would spend privacy.

        Raises:
            DataError: as ``Calibration.fit``.
        """
        return replace(self, calibration=Calibration.fit(self.logits(slots), clicked))

    def save(self, path: Path, *, about: dict[str, str]) -> None:
        """Write the head to one file; ``about`` says what promise it was trained under.

        Raises:
            RunError: the disk refuses.
        """
        described = {"format": FORMAT, "spec": asdict(self.spec), "calibration": asdict(self.calibration)}
        write_arrays(path, self.learned, metadata={**about, "head": json.dumps(described, sort_keys=True)})


def load_click_head(path: Path) -> ClickHead:
    """Read what ``ClickHead.save`` wrote.

    Raises:
        RunError: missing, damaged, or something else.
    """
    if path.is_dir():
        raise RunError(f"{path}: a folder; expected the file clicks.safetensors that fedrec clicks wrote")
    try:
        with safe_open(path, framework="numpy") as stored:
            described = json.loads((stored.metadata() or {})["head"])
            learned = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no mapping
        if described["format"] != FORMAT:
            raise ValueError(f"expected {FORMAT!r}")
        head = ClickHead(_spec_of(**described["spec"]), learned, Calibration(**described["calibration"]))
        if {name: values.shape for name, values in learned.items()} != dict(click_schema(head.spec)):
            raise ValueError("its weights do not fit its fields")
        if not all(np.isfinite(values).all() for values in learned.values()):
            raise ValueError("its weights are not finite")
    except (OSError, SafetensorError, ConfigError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RunError(f"{path}: not a usable click head: {str(error).splitlines()[0]}") from None
    return head


def _spec_of(numbers: list[str], number_bins: int, categories: list[list[Any]]) -> ClickSpec:
    """The rules as JSON has them."""
    return ClickSpec(tuple(numbers), number_bins, tuple(Category(name, tuple(values)) for name, values in categories))


def _norm(slots: np.ndarray) -> float:
    """Length of an impression's ones: a field's own slot each, and the bias."""
    return math.sqrt(slots.shape[1] + 1)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))
