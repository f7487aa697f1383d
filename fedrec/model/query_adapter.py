"""What (query, chosen item) events can teach search: a small turn of the query's vector, and how much words count.

A query's vector q becomes ``q + B A q`` at its own length, and an item's score is the mix of words and meaning that
search makes (``clients.serving.search.Searcher``), with learned weights. Untrained, both are exactly what they were.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedrec.model.learned_query import LearnedQuery

_LEAST_SPREAD = 1e-6  # of cosines that are all equal, which say nothing
_UNTRAINED = functional.softplus(torch.zeros(())).item()  # so that a raw weight of 0 is a factor of exactly 1


@dataclass(frozen=True)
class QueryExamples:
    """Queries of N people, at most M each, with the products that each choice was made from. Sensitive.

    Attributes:
        readings: (N, M, 2, E) float32, the query as typed and as corrected, by the encoder; twice the same where it is.
        items: (N, M, C) int64, the chosen item first, then public candidates of the query and of the catalogue.
        words: (N, M, C) float32 in [0, 1], BM25 over the query's best hit.
        is_candidate: (N, M, C) bool; of a row that is no event, all.
        is_event: (N, M) bool; each person has at least one.
    """

    readings: Tensor
    items: Tensor
    words: Tensor
    is_candidate: Tensor
    is_event: Tensor

    def __len__(self) -> int:
        return len(self.items)

    def of(self, people: Tensor) -> "QueryExamples":
        """Those of some people, by their rows, in that order."""
        return QueryExamples(
            self.readings[people],
            self.items[people],
            self.words[people],
            self.is_candidate[people],
            self.is_event[people],
        )


class Mix(nn.Module):
    """The weighed sum of words and meaning. A module, so that per-person gradients see its weights.

    Weights are ``start * softplus(weight) / softplus(0)``, and so never negative.
    """

    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.start = start  # no buffer: hooks for per-person gradients refuse them

    def forward(self, parts: Tensor) -> Tensor:
        """Return (B, ...) from words and meaning, (B, ..., 2)."""
        weights = parts.new_tensor(self.start) * functional.softplus(self.weight) / _UNTRAINED
        return (parts * weights).sum(dim=-1)

    def learned(self) -> tuple[float, float]:
        """Both weights, with the sum that they began with: only their ratio orders a list."""
        factors = (functional.softplus(self.weight.detach()) / _UNTRAINED).double().tolist()
        words, meaning = (start * factor for start, factor in zip(self.start, factors, strict=True))
        scale = sum(self.start) / (words + meaning)
        return words * scale, meaning * scale


class QueryAdapter(nn.Module):
    """The low-rank turn of a query and the mix of words and meaning.

    Source of the turn: Hu et al. 2021, LoRA, section 4.1 (B zero, A random), https://arxiv.org/abs/2106.09685; of the
    mix: Bruch, Gai and Ingber 2023, convex combination with a learned weight, https://arxiv.org/abs/2210.11934
    """

    def __init__(self, dimension: int, *, rank: int, words: float, meaning: float, seed: int) -> None:
        """An untrained one.

        Args:
            dimension: E, of the encoder.
            rank: R, of the turn, >= 1.
            words, meaning: weights that search has without it, >= 0 and not both 0.
            seed: of A, which everyone may know.
        """
        super().__init__()
        self.down = nn.Linear(dimension, rank, bias=False)
        self.up = nn.Linear(rank, dimension, bias=False)
        self.mix = Mix((words, meaning))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.down.weight.copy_(torch.randn(rank, dimension, generator=generator) / dimension**0.5)
            self.up.weight.zero_()

    def forward(self, readings: Tensor) -> Tensor:
        """Turn queries (B, ..., E); their lengths stay."""
        turned = readings + self.up(self.down(readings))
        return functional.normalize(turned, dim=-1) * readings.norm(dim=-1, keepdim=True)

    def learned(self) -> LearnedQuery:
        """What search needs of it."""
        down, up = (layer.weight.detach().numpy().copy() for layer in (self.down, self.up))
        return LearnedQuery(down, up, *self.mix.learned())


def person_losses(adapter: QueryAdapter, vectors: Tensor, examples: QueryExamples, *, sharpness: float) -> Tensor:
    """The loss of each person, from their own queries and the public catalogue alone.

    The mean over a person's events of the cross-entropy of the chosen item among the candidates. Nothing of another
    person is a candidate, so no person's gradient depends on who else is there.

    Args:
        vectors: of the items, (I, E) float32, unit rows. Public.
        examples: of B people.
        sharpness: what a mixed score is multiplied with to become a logit, > 0.

    Returns:
        (B,), finite.
    """
    logits = sharpness * mixed_scores(adapter, vectors, examples)
    logits = logits.masked_fill(~examples.is_candidate, -torch.inf)
    surprise = -functional.log_softmax(logits, dim=-1)[..., 0]  # (B, M)
    counts = examples.is_event.sum(dim=1)
    return (surprise * examples.is_event).sum(dim=1) / counts


@torch.no_grad()
def reciprocal_ranks(adapter: QueryAdapter, vectors: Tensor, examples: QueryExamples) -> Tensor:
    """How high what each person chose stands among the candidates: the mean of 1 / rank over events, (B,) in (0, 1].

    Of equal scores the chosen item stands last.
    """
    scores = mixed_scores(adapter, vectors, examples).masked_fill(~examples.is_candidate, -torch.inf)
    ranks = (scores >= scores[..., :1]).sum(dim=-1)  # (B, M)
    return (examples.is_event / ranks).sum(dim=1) / examples.is_event.sum(dim=1)


def mixed_scores(adapter: QueryAdapter, vectors: Tensor, examples: QueryExamples) -> Tensor:
    """Words and meaning as search mixes them, (B, M, C); meaning is stretched over the candidates.

    Search stretches it over the whole catalogue. Among candidates that hold the nearest items and uniform ones of all
    the rest, that is nearly the same, and it does not need every item for every query.
    """
    queries = adapter(examples.readings)  # (B, M, 2, E)
    cosines = torch.einsum("bmre,bmce->bmrc", queries, vectors[examples.items]).amax(dim=2)  # (B, M, C)
    least = cosines.masked_fill(~examples.is_candidate, torch.inf).amin(dim=-1, keepdim=True)
    most = cosines.masked_fill(~examples.is_candidate, -torch.inf).amax(dim=-1, keepdim=True)
    near = (cosines - least) / (most - least).clamp(min=_LEAST_SPREAD)
    scores: Tensor = adapter.mix(torch.stack([examples.words, near], dim=-1))
    return scores
