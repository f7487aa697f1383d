"""How much each part of the score should weigh, fitted to public people whom none of the parts was made from.

A small panel teaches a Transformer to be too sure of itself, and a bias too little. Four numbers, one for each part,
put that right: the loss is convex in them, so they are found exactly, and a part that does harm gets next to nothing.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from fedrec.data.histories import Histories
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.panel import LATEST_EVENTS
from fedrec.model.pairs import PairPart
from fedrec.model.ranker import Ranker
from fedrec.model.windows import latest_events

MOST_EVENTS = 2_500
MOST_CELLS = 1 << 26  # scores of all parts held at a time, 256 MB
BATCH = 128

PARTS = ("sequence", "text", "bias", "pairs")
LEAST = (0.1, 0.0, 0.0, 0.0)  # a Transformer that weighs nothing could never learn anything from anybody


@dataclass(frozen=True)
class PartWeights:
    """By how much to multiply the ranker's parts, and the weight of pairs; each at least what ``LEAST`` says."""

    sequence: float
    text: float
    bias: float
    pairs: float


def fit_part_weights(
    ranker: Ranker,
    panel: Histories,
    pairs: PairPart,
    *,
    masking: Masking,
    seed: int,
    pairs_weight: float | None = None,
) -> PartWeights:
    """Choose the weights under which the parts together predict the panel's late events best.

    Args:
        ranker: without an adapter, its parts as they were learned.
        panel: public people, at least one of them with two events.
        pairs: what public pairs add; its own weight must be 1.
        masking: what is not offered.
        seed: draws the events where there are more than fit into memory.
        pairs_weight: the weight that pairs have whatever is found; None to find it with the others.

    Returns:
        What minimises the mean cross-entropy, nats, of the next item over the catalogue.

    Source: McFadden 1974, Conditional logit analysis of qualitative choice behavior: the likelihood of such a sum of
        scores under one softmax is concave in the weights.
    """
    most = min(MOST_EVENTS, max(1, MOST_CELLS // (len(PARTS) * ranker.items)))
    pasts, targets = _late_events(panel, most=most, seed=seed)
    scores = _scores_of_parts(ranker, pairs, pasts)  # (4, E, I)
    is_hidden = torch.zeros(scores.shape[1:], dtype=torch.bool)
    for row, target in enumerate(targets):
        hidden = masking.hidden(pasts.of(row)).astype(np.int64)
        is_hidden[row, torch.from_numpy(hidden[hidden != target])] = True

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        factors = torch.tensor(weights, dtype=torch.float32, requires_grad=True)
        total = torch.tensordot(factors, scores, dims=1).masked_fill(is_hidden, float("-inf"))
        mean = torch.nn.functional.cross_entropy(total, torch.from_numpy(targets))
        (gradient,) = torch.autograd.grad(mean, factors)
        return float(mean.detach()), gradient.numpy().astype(np.float64)

    bounds: list[tuple[float, float | None]] = [(least, None) for least in LEAST]
    if pairs_weight is not None:
        bounds[-1] = (pairs_weight, pairs_weight)
    found = minimize(loss, np.ones(len(PARTS)), jac=True, method="L-BFGS-B", bounds=bounds)
    return PartWeights(*(round(float(weight), 4) for weight in found.x))


def apply_part_weights(ranker: Ranker, weights: PartWeights) -> None:
    """Fold the weights into the ranker, in place: its parts then weigh 1 each."""
    with torch.no_grad():
        ranker.sequence_gain.weight.mul_(weights.sequence)
        ranker.text_gain.weight.mul_(weights.text)
        ranker.bias.mul_(weights.bias)


def _late_events(panel: Histories, *, most: int, seed: int) -> tuple[Histories, np.ndarray]:
    """Draw late events of the panel: the past before each, and the item that came, (E,) int64."""
    late = [
        (person, place)
        for person, length in enumerate(panel.lengths)
        for place in range(max(1, length - LATEST_EVENTS + 1), length)
    ]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(late))[:most])
    pasts = [panel.of(late[i][0])[: late[i][1]].tolist() for i in chosen]
    targets = [int(panel.of(late[i][0])[late[i][1]]) for i in chosen]
    return Histories.from_lists(pasts), np.array(targets, dtype=np.int64)


@torch.no_grad()
def _scores_of_parts(ranker: Ranker, pairs: PairPart, pasts: Histories) -> Tensor:
    """What each part gives each item after each past, in the order of ``PARTS``: (4, E, I)."""
    ranker.eval()
    scores = torch.empty(len(PARTS), len(pasts), ranker.items)
    for first in range(0, len(pasts), BATCH):
        rows = slice(first, min(first + BATCH, len(pasts)))
        events = latest_events(pasts, np.arange(rows.start, rows.stop), history=ranker.spec.history)
        found = ranker.parts(*events)
        for part, name in enumerate(PARTS[:-1]):
            scores[part, rows] = found[name][:, 0]
        scores[-1, rows] = torch.from_numpy(
            pairs.after(*(part.numpy() for part in events)).toarray().astype(np.float32)
        )
    ranker.train()
    return scores
