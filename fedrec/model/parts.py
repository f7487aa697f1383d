"""The named parts of the score. Each is a module or a table that can be inspected on its own.

score = sequence + text + bias      (shared, one model for all)
        + local                     (a merchant's own memory, which lives on the client)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Gain(nn.Module):
    """How much each direction of item space counts in a part: ``forward(x) = weight * x`` over the last axis.

    A module, so that per-person gradients see it. Starts the same in every direction.
    """

    def __init__(self, dimensions: int, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dimensions,), float(start)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class TextProfile(nn.Module):
    """What a person bought lately, as one frozen text vector per position; nothing is learned.

    The profile after event t is the normalised sum of the last ``window`` item vectors, each weighted
    ``decay ** age``. Its inner product with an item's vector is the text part of the score.
    """

    def __init__(self, *, window: int, decay: float) -> None:
        super().__init__()
        self.window, self.decay = window, decay

    def forward(self, events: Tensor) -> Tensor:
        """Return profiles (B, L, K), unit rows, from event vectors (B, L, K) in order of time."""
        profile = events.clone()
        for age in range(1, min(self.window, events.shape[1])):
            profile[:, age:] += self.decay**age * events[:, :-age]
        return functional.normalize(profile, dim=-1)
