"""The ranker: a causal Transformer over item vectors plus frozen text similarity plus a public bias.

The Transformer's state is mapped back into the space of the item vectors, so one inner product with
the frozen table scores the catalogue, new items included:

    score(item) = <sequence_gain * head(state) + text_gain * profile, vector(item)> + bias(item)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedrec.model.decoder import build_decoder
from fedrec.model.parts import Gain, TextProfile

SEQUENCE_GAIN = 10.0  # like the text part: about ten logits per unit of cosine


@dataclass(frozen=True)
class RankerSpec:
    """Everything needed to build the same module again; JSON values only."""

    decoder: dict
    history: int
    text_window: int
    text_decay: float
    text_scale: float
    dropout: float


class Ranker(nn.Module):
    """Scores the whole catalogue after each event of a history.

    Built untrained, it equals the frozen-text baseline: the head starts at zero, so the sequence
    part and the bias add nothing until something is learned.

    Args:
        vectors: whitened item vectors, (I, K), unit rows; public.
        spec: how to build the rest.
    """

    vectors: Tensor

    def __init__(self, vectors: Tensor, spec: RankerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("vectors", vectors, persistent=False)
        width, dimensions = spec.decoder["hidden_size"], vectors.shape[1]
        self.item_input = nn.Linear(dimensions, width, bias=False)
        self.decoder = build_decoder(spec.decoder)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(width, dimensions, bias=False)
        nn.init.zeros_(self.head.weight)
        self.sequence_gain = Gain(dimensions, SEQUENCE_GAIN)
        self.text = TextProfile(window=spec.text_window, decay=spec.text_decay)
        self.text_gain = Gain(dimensions, spec.text_scale)
        self.bias = nn.Parameter(torch.zeros(len(vectors)))

    @property
    def items(self) -> int:
        """Number of items in the catalogue."""
        return len(self.vectors)

    @property
    def device(self) -> torch.device:
        """Where it computes; batches have to be there too."""
        return self.vectors.device

    def freeze(self) -> None:
        """Fix the public base: nothing trains any more and nothing is dropped."""
        self.requires_grad_(False)
        self.dropout.p = 0.0

    def forward(self, items: Tensor, positions: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Return the shared score of the catalogue (or of ``candidates``) after chosen events.

        Args:
            items: item indices in order of time, (B, L), padded at the end with any valid index.
            positions: which events to score after, (B, T), each in [0, L).
            candidates: item indices, (C,); the whole catalogue when absent.

        Returns:
            (B, T, I) or (B, T, C) logits.
        """
        sequence, text = self.states(items, positions)
        vectors, bias = self.table(candidates)
        return (sequence + text) @ vectors.T + bias

    def parts(self, items: Tensor, positions: Tensor, candidates: Tensor | None = None) -> dict[str, Tensor]:
        """Return each part of the shared score by name, (B, T, I or C) each; they sum to ``forward``."""
        sequence, text = self.states(items, positions)
        vectors, bias = self.table(candidates)
        return {
            "sequence": sequence @ vectors.T,
            "text": text @ vectors.T,
            "bias": bias.expand(*positions.shape, -1),
        }

    def states(self, items: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the Transformer and the text profile ask for, (B, T, K) each, scaled, in item space."""
        events = self.vectors[items]  # (B, L, K)
        inputs = self.item_input(self.dropout(events))
        # Right padding and causal attention: a real event never sees the padding, so no mask is needed.
        hidden = _at(self.decoder(inputs_embeds=inputs).last_hidden_state, positions)
        sequence = self.sequence_gain(self.head(self.dropout(hidden)))
        return sequence, self.text_gain(_at(self.text(events), positions))

    def table(self, candidates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return vectors (I, K) and bias (I,) of the catalogue, or (C, K) and (C,) of ``candidates`` (C,)."""
        if candidates is None:
            return self.vectors, self.bias
        return self.vectors[candidates], self.bias[candidates]


def _at(rows: Tensor, positions: Tensor) -> Tensor:
    """Pick (B, T, D) from (B, L, D) at ``positions`` (B, T)."""
    return torch.gather(rows, 1, positions[..., None].expand(-1, -1, rows.shape[-1]))
