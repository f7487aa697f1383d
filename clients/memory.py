"""A merchant's own memory: transitions among its own people. It costs no privacy because it never leaves.

The part of the score is ``weight * log(1 + sharpness * P(item | recent items))``: zero for whatever
the merchant has not seen follow, and additive, so that an explanation can name it.
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
    """

    weight: float
    sharpness: float
    window: int
    recent: int
    decay: float
    shrinkage: float


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
        """Return the part after a history of item indices, (I,) float32, >= 0."""
        probabilities = self.transitions.after(history[-self.spec.recent :], decay=self.spec.decay)
        return (self.spec.weight * np.log1p(self.spec.sharpness * probabilities)).astype(np.float32)
