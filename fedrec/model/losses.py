"""What one person's history costs the ranker. Never a term that another person's data could change."""

import math

import torch
from torch import Tensor

from fedrec.model.ranker import Ranker
from fedrec.model.windows import Windows

MINUS_INFINITY = float("-inf")


def person_losses(ranker: Ranker, windows: Windows, *, mask_last: bool, negatives: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the next item over each person's chosen events.

    Args:
        windows: the batch; one row, one person.
        mask_last: leave out the item just bought, which the data rules forbid as the next one.
        negatives: public item indices, (C,), to stand for the catalogue when it is large; uniform over
            the catalogue and independent of everyone's data. The whole catalogue when None.

    Returns:
        (B,), float32; row i depends on row i of ``windows`` alone.

    Source: sampled softmax with uniform negatives, Klenitskiy and Vasilev 2023, https://arxiv.org/abs/2309.07602
    """
    last = torch.gather(windows.items, 1, windows.positions)
    if negatives is None:
        logits = ranker(windows.items, windows.positions)  # (B, T, I)
        scores = torch.gather(logits, 2, windows.targets[..., None])[..., 0]
        if mask_last:
            logits = logits.scatter(2, last[..., None], MINUS_INFINITY)
    else:
        scores, logits = ranker.score_targets(windows.items, windows.positions, windows.targets, negatives)
        unwanted = negatives == windows.targets[..., None]
        if mask_last:
            unwanted |= negatives == last[..., None]
        stands_for = math.log(ranker.items / len(negatives))  # items of the catalogue behind each negative
        logits = torch.cat([(logits + stands_for).masked_fill(unwanted, MINUS_INFINITY), scores[..., None]], dim=2)
    losses = torch.logsumexp(logits, dim=2) - scores  # (B, T)
    counts = windows.is_target.sum(dim=1).clamp(min=1)
    return torch.where(windows.is_target, losses, torch.zeros_like(losses)).sum(dim=1) / counts
