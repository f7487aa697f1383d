"""What one person's history costs the ranker. Never a term that another person's data could change."""

import math

import torch
from torch import Tensor

from fedrec.model.log_sum import log_sum_exp
from fedrec.model.ranker import Ranker
from fedrec.model.windows import Windows


def person_losses(ranker: Ranker, windows: Windows, *, mask_last: bool, negatives: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the next item over each person's chosen events.

    The catalogue is scored after real events alone: padding costs the decoder's time, not the catalogue's.

    Args:
        windows: the batch; one row, one person.
        mask_last: leave out the item just bought, which the data rules forbid as the next one.
        negatives: public item indices, (C,), to stand for the catalogue when it is large; uniform over
            the catalogue and independent of everyone's data. The whole catalogue when None.

    Returns:
        (B,), float32; row i depends on row i of ``windows`` alone.

    Source: sampled softmax with uniform negatives, Klenitskiy and Vasilev 2023, https://arxiv.org/abs/2309.07602
    """
    sequence, text = ranker.states(windows.items, windows.positions)
    wanted = (sequence + text)[windows.is_target]  # (N, K), the real events of everybody
    targets = windows.targets[windows.is_target]
    last = torch.gather(windows.items, 1, windows.positions)[windows.is_target]
    vectors, bias = ranker.table()
    own = (wanted * vectors[targets]).sum(dim=1) + bias[targets]
    left_out = [last] if mask_last else []
    if negatives is None:
        losses = log_sum_exp(wanted, vectors, bias, excluded=_columns(left_out, last)) - own
    else:
        vectors, bias = ranker.table(negatives)
        stands_for = math.log(ranker.items / len(negatives))  # items of the catalogue behind each negative
        excluded = _columns([targets, *left_out], last)
        others = log_sum_exp(wanted, vectors, bias + stands_for, excluded=excluded, candidates=negatives)
        losses = torch.logaddexp(others, own) - own
    of_people = torch.zeros(windows.is_target.shape, dtype=losses.dtype, device=losses.device)
    of_people = of_people.masked_scatter(windows.is_target, losses)  # (B, T)
    return of_people.sum(dim=1) / windows.is_target.sum(dim=1).clamp(min=1)


def _columns(items: list[Tensor], like: Tensor) -> Tensor:
    """(N, E) of E times (N,)."""
    return torch.stack(items, dim=1) if items else like.new_empty(len(like), 0)
