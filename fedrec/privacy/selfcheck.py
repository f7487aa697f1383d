"""A look before leaping: do the per-person gradients of this very model and loss hold what they promise?

Hooks can go wrong in silence (tied weights, a reused axis), and a loss can couple people (negatives
taken from the batch, batch statistics). Either voids the guarantee, so training starts only when the
gradient of each person in a batch equals plain autograd on that person alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedrec.errors import PrivacyError
from fedrec.privacy.gradients import PersonGradients

_NUDGE = 0.02  # spread of the temporary change; a fresh LoRA has zero gradients that would hide errors
_FLOOR = 0.1  # differences are relative to a person's gradient, or to this share of the largest one


def verify_person_gradients(
    model: nn.Module, losses_of: Callable[[Tensor], Tensor], *, people: int, tolerance: float = 1e-4
) -> None:
    """Compare each person's gradient within a batch with autograd on the person alone.

    Args:
        model: in training mode; unchanged on return.
        losses_of: rows (B,) int64 to losses (B,) of those people. It must give a person the same loss
            each time: fix windows, negatives and dropout.
        people: rows 0..people-1 exist; at least 2. Public or synthetic people will do.
        tolerance: largest relative L2 difference, per person and parameter.

    Raises:
        PrivacyError: a difference, named by parameter; a loss that changes with the batch; gradients
            that are all zero or not finite, which prove nothing; or what ``PersonGradients`` refuses.
    """
    if people < 2:
        raise PrivacyError(f"people={people}: expected at least 2 to see whether people are coupled")
    rows = torch.arange(people)
    with _nudged(model):
        with PersonGradients(model) as engine:
            batch = engine.compute(lambda: losses_of(rows), people=people)
        with torch.no_grad():
            batch_losses = losses_of(rows)
        alone = [_alone(model, losses_of, rows[i : i + 1]) for i in range(people)]
    _compare_losses(batch_losses, torch.stack([loss for loss, _ in alone]), tolerance)
    _compare_gradients(model, batch, torch.stack([gradient for _, gradient in alone]), tolerance)


@contextmanager
def _nudged(model: nn.Module) -> Iterator[None]:
    """Move every trainable parameter a little, and put back the exact values afterwards."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    saved = [p.detach().clone() for p in trainable]
    generator = torch.Generator().manual_seed(0)  # public: it protects nothing
    try:
        with torch.no_grad():
            for p in trainable:
                p.add_(_NUDGE * torch.randn(p.shape, generator=generator).to(p))
        yield
    finally:
        with torch.no_grad():
            for p, value in zip(trainable, saved, strict=True):
                p.copy_(value)


def _alone(model: nn.Module, losses_of: Callable[[Tensor], Tensor], row: Tensor) -> tuple[Tensor, Tensor]:
    """One person's loss () and gradient (P,) without hooks."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    loss = losses_of(row).sum()
    if not loss.requires_grad:
        raise PrivacyError("a person's loss alone depends on no trainable parameter: expected one that does")
    gradients = torch.autograd.grad(loss, trainable, allow_unused=True)
    flat = [torch.zeros_like(p) if g is None else g for p, g in zip(trainable, gradients, strict=True)]
    return loss.detach(), torch.cat([g.flatten().float() for g in flat])


def _compare_losses(batch: Tensor, alone: Tensor, tolerance: float) -> None:
    if not torch.allclose(batch.float(), alone.float(), rtol=tolerance, atol=tolerance):
        raise PrivacyError(
            "a person's loss changes with the batch: expected the same loss alone and among others "
            "(no in-batch negatives, no batch statistics, no fresh randomness)"
        )


def _compare_gradients(model: nn.Module, batch: Tensor, alone: Tensor, tolerance: float) -> None:
    """(B, P) against (B, P), parameter by parameter, so that no small one hides behind a large one."""
    if not torch.isfinite(batch).all() or not torch.isfinite(alone).all() or not alone.any():
        raise PrivacyError("gradients are zero or not finite: the check proves nothing; expected usable losses")
    named = [(name, p.numel()) for name, p in model.named_parameters() if p.requires_grad]
    sizes = [size for _, size in named]
    for (name, _), engine, loop in zip(named, torch.split(batch, sizes, 1), torch.split(alone, sizes, 1), strict=True):
        length = loop.norm(dim=1)
        scale = length.clamp(min=_FLOOR * float(length.max()))
        if bool(((engine - loop).norm(dim=1) > tolerance * scale + 1e-12).any()):
            raise PrivacyError(
                f"{name}: a person's gradient in a batch differs from the person alone; "
                "expected a loss and modules that keep people apart and use each weight through its own module"
            )
