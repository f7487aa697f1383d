import math

import pytest
import torch
from torch import Tensor

from fedrec.model import log_sum
from fedrec.model.log_sum import log_sum_exp

EVENTS, WIDTH, ITEMS = 7, 5, 11
EXCLUDED = torch.tensor([[3, 0], [10, 10], [1, 2], [0, 5], [9, 4], [3, 3], [7, 8]])
SOME = torch.tensor([4, 9, 9, 0, 3])


@pytest.fixture
def arrays() -> list[Tensor]:
    """What is asked for, vectors and bias, float64 so that a second way must agree to the last digits."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((EVENTS, WIDTH), (ITEMS, WIDTH), (ITEMS,))
    return [(3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_() for shape in shapes]


def plainly(wanted: Tensor, vectors: Tensor, bias: Tensor, *, excluded: Tensor, candidates: Tensor | None) -> Tensor:
    """The second implementation: every score, and torch's own sum."""
    items = torch.arange(len(vectors)) if candidates is None else candidates
    is_left_out = (items[None, :, None] == excluded[:, None, :]).any(dim=2)
    return torch.logsumexp((wanted @ vectors.T + bias).masked_fill(is_left_out, -math.inf), dim=1)


@pytest.mark.parametrize("cells", [1, 3 * ITEMS, 1 << 20])
@pytest.mark.parametrize("excluded", [EXCLUDED, EXCLUDED[:, :1], EXCLUDED[:, :0]], ids=["two", "one", "none"])
@pytest.mark.parametrize("candidates", [None, SOME], ids=["all", "some"])
def test_value_and_every_gradient_are_those_of_all_scores_at_once(arrays, monkeypatch, cells, excluded, candidates):
    monkeypatch.setattr(log_sum, "CELLS_AT_A_TIME", cells)
    wanted, vectors, bias = arrays
    table = (vectors, bias) if candidates is None else (vectors[candidates], bias[candidates])
    slope = torch.linspace(-1, 2, EVENTS, dtype=torch.float64)
    results = [of(wanted, *table, excluded=excluded, candidates=candidates) for of in (log_sum_exp, plainly)]
    ours, theirs = (torch.autograd.grad(result, arrays, slope, retain_graph=True) for result in results)
    assert torch.allclose(*results, rtol=1e-12)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


def test_no_block_of_scores_is_larger_than_the_bound(arrays, monkeypatch):
    shapes = []
    honest = log_sum.functional.linear

    def counted(wanted: Tensor, vectors: Tensor, bias: Tensor) -> Tensor:
        shapes.append((len(wanted), len(vectors)))
        return honest(wanted, vectors, bias)

    monkeypatch.setattr(log_sum, "CELLS_AT_A_TIME", 2 * ITEMS + 1)
    monkeypatch.setattr(log_sum.functional, "linear", counted)
    log_sum_exp(*arrays, excluded=EXCLUDED)
    assert shapes == [(2, ITEMS), (2, ITEMS), (2, ITEMS), (1, ITEMS)]


def test_a_frozen_table_keeps_nothing_as_large_as_events_times_items(arrays):
    wanted, vectors, bias = (array.detach() for array in arrays)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        log_sum_exp(wanted.requires_grad_(), vectors, bias, excluded=EXCLUDED)
    assert kept
    assert max(tensor.numel() for tensor in kept) == EVENTS * WIDTH


def test_scores_of_any_size_neither_overflow_nor_vanish():
    wanted = torch.tensor([[1e30], [-1e30], [200.0], [-200.0]], requires_grad=True)
    result = log_sum_exp(wanted, torch.ones(2, 1), torch.zeros(2), excluded=torch.empty(4, 0, dtype=torch.int64))
    assert torch.allclose(result, wanted[:, 0] + math.log(2))
    (slope,) = torch.autograd.grad(result.sum(), wanted)
    assert torch.equal(slope, torch.ones(4, 1))


def test_an_event_that_leaves_every_item_out_has_minus_infinity_and_no_gradient():
    wanted = torch.randn(2, 3, requires_grad=True)
    result = log_sum_exp(wanted, torch.ones(2, 3), torch.zeros(2), excluded=torch.tensor([[0, 1], [1, 1]]))
    assert torch.isinf(result).tolist() == [True, False]
    (slope,) = torch.autograd.grad(result.sum(), wanted)
    assert slope.sum(dim=1).tolist() == [0.0, 3.0]


def test_what_is_not_finite_stays_with_its_own_event():
    wanted = torch.tensor([[1.0], [math.nan], [math.inf], [2.0]], requires_grad=True)
    result = log_sum_exp(wanted, torch.ones(3, 1), torch.zeros(3), excluded=torch.zeros(4, 1, dtype=torch.int64))
    (slope,) = torch.autograd.grad(result.sum(), wanted)
    assert torch.isfinite(result).tolist() == torch.isfinite(slope[:, 0]).tolist() == [True, False, False, True]
