"""Bounding what one person can contribute to a step, whatever their gradient looks like."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from fedrec.errors import PrivacyError

Clipping = Literal["flat", "auto-s"]
CLIPPINGS: tuple[str, ...] = get_args(Clipping)

_STABILISER = 0.01  # gamma of AUTO-S
_SHRINK = 1.0 - 1e-9  # so that the bound also holds after rounding in float64
_BLOCK_ELEMENTS = 1 << 19  # float64 work space of about 4 MB at a time


def clip_sum(gradients: Tensor, clip_norm: float, kind: str) -> Tensor:
    """Clip each person's gradient and add them up.

    Args:
        gradients: one row a person, (B, P), floating point, any values. Sensitive.
        clip_norm: C > 0, the largest L2 norm a person may contribute.
        kind: "flat" scales long rows down to C; "auto-s" scales every row to C·|g| / (|g| + 0.01).

    Returns:
        (P,), float64, on the gradients' device; finite. Sensitive until noised.

    Raises:
        PrivacyError: a shape, dtype, clip norm or kind that is not as above.

    Guarantee: adding or removing one row moves the result by at most ``clip_norm`` in L2 norm.
        A row that is not finite counts as zero.
    Source: "flat" Abadi et al. 2016, Algorithm 1, https://arxiv.org/abs/1607.00133;
        "auto-s" Bu et al. 2023, equation 4.1, https://arxiv.org/abs/2206.07136
    """
    if gradients.dim() != 2 or not gradients.is_floating_point():
        raise PrivacyError(
            f"gradients of shape {tuple(gradients.shape)}, {gradients.dtype}: "
            "expected (B, P), one floating-point row a person"
        )
    check_clipping(clip_norm, kind)
    total = torch.zeros(gradients.shape[1], dtype=torch.float64, device=gradients.device)
    rows = max(1, _BLOCK_ELEMENTS // max(1, gradients.shape[1]))
    for block in torch.split(gradients.detach(), rows):
        weights, direction = _clipped(block, clip_norm * _SHRINK, kind)
        total += weights @ direction
    return total


def check_clipping(clip_norm: float, kind: str) -> None:
    """Refuse a clip norm that is not a finite number > 0, or a kind that does not exist.

    Raises:
        PrivacyError: as said.
    """
    if not (math.isfinite(clip_norm) and clip_norm > 0):
        raise PrivacyError(f"clip_norm={clip_norm}: expected a finite number > 0; set privacy.clip_norm")
    if kind not in CLIPPINGS:
        raise PrivacyError(f"clipping={kind!r}: expected one of {', '.join(CLIPPINGS)}; set privacy.clipping")


def _clipped(rows: Tensor, bound: float, kind: str) -> tuple[Tensor, Tensor]:
    """Weights (B,) and directions (B, P), float64, of rows (B, P): each weight times its direction is <= bound long.

    A direction is the row over the power of two below its largest entry: squares neither overflow nor vanish, and
    a row that is not shortened comes back to the last digit.
    """
    if not rows.shape[1]:
        return rows.new_zeros(len(rows), dtype=torch.float64), rows.double()
    peak = rows.abs().amax(dim=1).double()  # a NaN comes through
    is_finite = torch.isfinite(peak)
    exponent = torch.frexp(torch.where(is_finite, peak, 1.0)).exponent - 1
    scale = torch.ldexp(torch.ones_like(peak), exponent)
    direction = rows / scale[:, None]  # float64, largest entry in [1, 2)
    direction.masked_fill_(~is_finite[:, None], 0.0)  # a product with 0 would keep NaN
    length = torch.linalg.vector_norm(direction, dim=1)
    if kind == "auto-s":
        weights = bound / (length + _STABILISER / scale)
    else:
        weights = torch.where(scale * length <= bound, scale, bound / length)
    return weights, direction
