"""A tap on the mechanism: the client's code runs unchanged, and the auditor sees what went in and came out.

The auditor hands the client a plan whose mechanism is the plan's own, wrapped. The wrapper passes every
call on; it only adds rows of its own (canaries) to the people's gradients and writes down each step. Where a plan
covers nothing but sums over clients, the rest of the sum is added to what is written down.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from fedrec.privacy.mechanism import Mechanism
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import RandomSource, SecureRandom
from fedrec.privacy.trust import server_noise

_STABILISER = 0.01  # gamma of AUTO-S, Bu et al. 2023, equation 4.1
_ROWS_AT_A_TIME = 128


@dataclass(frozen=True)
class Step:
    """One step as the mechanism saw it.

    Attributes:
        people: how many people stood to be sampled, added rows not counted.
        chosen: indices of those sampled, (B,).
        added: indices of the added rows that were sampled.
        rows: the chosen people's gradients, (B, W), zeros beyond P; None unless the tap keeps them.
        known: (W,), what those people contribute by the auditor's own clipping; float64.
        released: (W,), what the plan lets anyone see: what the mechanism returned, and the rest of the sum it is in.
    """

    people: int
    chosen: np.ndarray
    added: np.ndarray
    rows: Tensor | None
    known: np.ndarray
    released: np.ndarray


@dataclass
class Tap:
    """What the auditor adds, and what was seen so far.

    Attributes:
        added: rows beside the people's, each sampled like a person.
        make: indices (k,) and width W to these rows, (k, W).
        width: W, at least; the mechanism releases max(W, P) numbers, of which the client gets its P.
        keeps_rows: whether steps hold the people's gradients.
        steps: seen so far.
    """

    added: int = 0
    make: Callable[[np.ndarray, int], Tensor] | None = None
    width: int = 0
    keeps_rows: bool = False
    steps: list[Step] = field(default_factory=list)


class TappedPlan(PrivacyPlan):
    """The same plan with the same digest, whose mechanism is watched. From ``tapped`` alone."""

    def mechanism(self, random: RandomSource, *, steps_taken: int = 0) -> Mechanism:
        inner = super().mechanism(random, steps_taken=steps_taken)
        return cast(Mechanism, _TappedMechanism(inner, self._tap, self))  # type: ignore[attr-defined]


def tapped(plan: PrivacyPlan, tap: Tap) -> TappedPlan:
    """``plan``, watched by ``tap``."""
    watched = TappedPlan.from_dict(plan.to_dict())
    object.__setattr__(watched, "_tap", tap)
    return watched


def clipped(rows: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    """The auditor's own clipping, (B, W) float64: a second implementation; rows that are not finite count as zero."""
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if plan.clipping == "auto-s":
        return np.asarray(rows * (plan.clip_norm / (length + _STABILISER)))
    return np.asarray(rows * np.minimum(1.0, plan.clip_norm / np.maximum(length, 1e-300)))


def rest_of_sum(plan: PrivacyPlan, width: int) -> np.ndarray:
    """What a client's release is added to before the plan lets anyone see it, (W,); zeros under local trust.

    Those it shares the noise with have nobody here, so only their noise is in it: by the same mechanism. A trusted
    server's noise comes from the function that it calls.
    """
    rest = server_noise(plan.server_noise_std, width)
    for _ in range(plan.noise_sharers - 1):
        other = Mechanism(plan, SecureRandom())
        other.sample(0)
        rest += other.release([], width)
    return rest


class _TappedMechanism:
    """Passes ``sample`` and ``release`` on to the real mechanism."""

    def __init__(self, inner: Mechanism, tap: Tap, plan: PrivacyPlan) -> None:
        self._inner, self._tap, self._plan = inner, tap, plan
        self._people = 0
        self._chosen = self._added = np.zeros(0, np.int64)

    @property
    def steps_taken(self) -> int:
        return self._inner.steps_taken

    def sample(self, people: int) -> np.ndarray:
        drawn = self._inner.sample(people + self._tap.added)
        self._people = people
        self._chosen, self._added = drawn[drawn < people], drawn[drawn >= people] - people
        return self._chosen

    def release(self, chunks: Iterable[Tensor], parameters: int) -> np.ndarray:
        width = max(parameters, self._tap.width)
        known, kept = np.zeros(width), []

        def widened() -> Iterator[Tensor]:
            for chunk in chunks:
                wide = torch.nn.functional.pad(chunk, (0, width - chunk.shape[1])) if chunk.dim() == 2 else chunk
                known[:] += clipped(wide.detach().double().numpy(), self._plan).sum(axis=0)
                kept.extend([wide.detach().clone()] if self._tap.keeps_rows else [])
                yield wide
            yield from self._added_rows(width)

        released = self._inner.release(widened(), width)
        rows, shown = torch.cat(kept) if kept else None, released + rest_of_sum(self._plan, width)
        self._tap.steps.append(Step(self._people, self._chosen, self._added, rows, known, shown))
        return released[:parameters]

    def _added_rows(self, width: int) -> Iterator[Tensor]:
        if self._tap.make is not None:
            for first in range(0, len(self._added), _ROWS_AT_A_TIME):
                yield self._tap.make(self._added[first : first + _ROWS_AT_A_TIME], width)
