"""The logarithm of the sum of all items' exponentiated scores, without ever holding the scores of all events."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CELLS_AT_A_TIME = 1 << 20  # scores held at once, 4 MiB; bounds memory, and the result does not depend on it
MINUS_INFINITY = float("-inf")


def log_sum_exp(
    wanted: Tensor, vectors: Tensor, bias: Tensor, *, excluded: Tensor, candidates: Tensor | None = None
) -> Tensor:
    """Return ``log(sum over items of exp(<wanted, vector> + bias))`` for each event, some items left out.

    The scores are made a few events at a time and the gradient along with them, so memory is N times the width and
    not N times the catalogue, unless the vectors or the bias themselves are trained.

    Args:
        wanted: what each event asks for, (N, K).
        vectors: of the items in the sum, (I, K).
        bias: of the same items, (I,).
        excluded: items that each event leaves out of its sum, (N, E), E may be 0.
        candidates: which items the rows of ``vectors`` are, (I,); row i is item i when None.

    Returns:
        (N,); minus infinity where every item is left out. Row i depends on row i of ``wanted`` and ``excluded`` alone.
    """
    result: Tensor = _LogSumExp.apply(wanted, vectors, bias, excluded, candidates)  # type: ignore[no-untyped-call]
    return result


class _LogSumExp(torch.autograd.Function):
    """The gradient of a log-sum-exp by the scores is their softmax, so one pass yields both."""

    @staticmethod
    def forward(
        ctx: Any, wanted: Tensor, vectors: Tensor, bias: Tensor, excluded: Tensor, candidates: Tensor | None
    ) -> Tensor:
        by_wanted, by_vectors, by_bias, *_ = ctx.needs_input_grad
        result = wanted.new_empty(len(wanted))
        mean = torch.empty_like(wanted) if by_wanted else None  # vectors under the softmax, (N, K)
        softmax = wanted.new_empty(len(wanted), len(vectors)) if by_vectors or by_bias else None
        events = max(1, CELLS_AT_A_TIME // max(1, len(vectors)))
        for first in range(0, len(wanted), events):
            block = slice(first, first + events)
            scores = functional.linear(wanted[block], vectors, bias)  # (n, I)
            _leave_out(scores, excluded[block], candidates)
            peak = scores.amax(dim=1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
            weights = scores.sub_(peak).exp_()
            total = weights.sum(dim=1, keepdim=True)
            result[block] = (total.log() + peak)[:, 0]
            total = total.clamp(min=1.0)  # one of the weights is 1, unless all are left out
            if mean is not None:
                mean[block] = (weights @ vectors) / total
            if softmax is not None:
                softmax[block] = weights / total
        ctx.save_for_backward(wanted, mean, softmax)
        return result

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        by_wanted, by_vectors, by_bias, *_ = ctx.needs_input_grad
        wanted, mean, softmax = ctx.saved_tensors
        return (
            slope[:, None] * mean if by_wanted else None,
            softmax.T @ (slope[:, None] * wanted) if by_vectors else None,
            slope @ softmax if by_bias else None,
            None,
            None,
        )


def _leave_out(scores: Tensor, excluded: Tensor, candidates: Tensor | None) -> None:
    """Set the scores (n, I) of each row's excluded items (n, E) to minus infinity, in place."""
    if candidates is None:
        scores.scatter_(1, excluded, MINUS_INFINITY)
        return
    for items in excluded.unbind(dim=1):
        scores.masked_fill_(candidates == items[:, None], MINUS_INFINITY)
