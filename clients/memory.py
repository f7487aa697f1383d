"""A merchant's own memory: what follows what among its people, and what a person bought before.

It costs no privacy because it never leaves. Two parts, both zero for what was never seen, and additive,
so that an explanation can name them:

    transitions   weight * log(1 + sharpness * P(item | recent items))
    repeats       repeat_weight * log(1 + how often this person took the item)
"""

from dataclasses import dataclass

import numpy as np

from fedrec.data.histories import Histories
from fedrec.model.transitions import Transitions, count_transitions


@dataclass(frozen=True)
class MemorySpec:
    """How the memory is counted and read; chosen on the public panel.

    Attributes:
        weight: gamma, logits.
        sharpness: how soon a probability counts; the part is linear below ``1 / sharpness``.
        window: events apart that still count as a transition; a pair g apart weighs 1/g.
        recent: events of a history that are looked up.
        decay: weight of a looked-up event relative to the next later one.
        shrinkage: pseudo-counts added to each row.
        repeat_weight: logits of a person's own earlier purchases; 0 where hardly anything is bought again.
    """

    weight: float
    sharpness: float
    window: int
    recent: int
    decay: float
    shrinkage: float
    repeat_weight: float


@dataclass(frozen=True, eq=False)
class LocalMemory:
    """The local part of the score. Built from private data: stays on the merchant's machine."""

    spec: MemorySpec
    transitions: Transitions

    @classmethod
    def of(cls, histories: Histories, spec: MemorySpec, *, items: int) -> "LocalMemory":
        """Count the merchant's own people."""
        gap_weights = [1 / gap for gap in range(1, spec.window + 1)]
        return cls(spec, count_transitions(histories, items=items, gap_weights=gap_weights, shrinkage=spec.shrinkage))

    def scores(self, history: np.ndarray) -> np.ndarray:
        """Return the local score after a history of item indices, (I,) float32, >= 0: the sum of ``parts``."""
        return sum(self.parts(history).values()).astype(np.float32)  # type: ignore[union-attr]

    def parts(self, history: np.ndarray) -> dict[str, np.ndarray]:
        """Return each part by name, (I,) float64, >= 0."""
        probabilities = self.transitions.after(history[-self.spec.recent :], decay=self.spec.decay)
        counts = np.bincount(history, minlength=self.transitions.items)
        return {
            "transitions": self.spec.weight * np.log1p(self.spec.sharpness * probabilities),
            "repeats": self.spec.repeat_weight * np.log1p(counts),
        }
