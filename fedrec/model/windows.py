"""From ragged histories to the padded tensors that the ranker reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec.data.histories import Histories


@dataclass(frozen=True)
class Windows:
    """A batch of people: one window of history each, and the events to learn from inside it.

    Attributes:
        items: (B, L) int64, padded at the end with 0.
        positions: (B, T) int64, events to predict after.
        targets: (B, T) int64, the item that came next.
        is_target: (B, T) bool, false where a row has fewer than T positions.
    """

    items: Tensor
    positions: Tensor
    targets: Tensor
    is_target: Tensor

    def __len__(self) -> int:
        return len(self.items)

    def to(self, device: torch.device) -> "Windows":
        """Return the same batch on another device."""
        return Windows(*(part.to(device) for part in (self.items, self.positions, self.targets, self.is_target)))

    def rows(self, index: slice | Tensor) -> "Windows":
        """Return the same batch cut to some of its people."""
        return Windows(self.items[index], self.positions[index], self.targets[index], self.is_target[index])


def padded(sequences: Sequence[np.ndarray]) -> Windows:
    """Pad sequences of at least two items; every event after the first is a target.

    Args:
        sequences: item indices of one window a person, in order of time.
    """
    length = max(len(sequence) for sequence in sequences) - 1
    items = np.zeros((len(sequences), length), np.int64)
    targets = np.zeros((len(sequences), length), np.int64)
    events = np.array([len(sequence) - 1 for sequence in sequences])
    for row, sequence in enumerate(sequences):
        items[row, : events[row]] = sequence[:-1]
        targets[row, : events[row]] = sequence[1:]
    positions = np.arange(length)
    is_target = positions < events[:, None]
    every = np.broadcast_to(positions, items.shape).copy()
    return Windows(*(torch.from_numpy(array) for array in (items, every, targets, is_target)))


def window_of_step(sequence: np.ndarray, *, step: int, history: int) -> np.ndarray:
    """Return the ``history + 1`` items that a person shows in a step: the latest first, then ever earlier ones.

    After the earliest it starts again. It depends on the person's own history and the step, on nothing else.

    Args:
        sequence: at least two items, in order of time.
        step: >= 0.
        history: events to predict in a window, at most.
    """
    windows = -(-(len(sequence) - 1) // history)
    stop = len(sequence) - (step % windows) * history
    return sequence[max(0, stop - history - 1) : stop]


def tiled_windows(histories: Histories, *, history: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut every history into windows that together cover all its events, from a random offset, with full context."""
    windows = []
    for person in range(len(histories)):
        sequence = histories.of(person)
        events = len(sequence) - 1
        offset = int(rng.integers(0, history)) if events > history else 0
        for stop in range(offset or history, events + history, history):
            stop = min(stop, events)
            windows.append(sequence[max(0, stop - history) : stop + 1])
    return [window for window in windows if len(window) > 1]


def latest_events(histories: Histories, people: np.ndarray, *, history: int) -> tuple[Tensor, Tensor]:
    """Return the last events of some people (B, L) and the position of each one's last event (B, 1)."""
    sequences = [histories.of(int(person))[-history:] for person in people]
    items = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
    for row, sequence in enumerate(sequences):
        items[row, : len(sequence)] = sequence
    last = np.array([[len(sequence) - 1] for sequence in sequences])
    return torch.from_numpy(items), torch.from_numpy(last)
