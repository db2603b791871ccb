"""Colours limited to [0, 1] whose gradients do not vanish at the limits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def bounded(x: Tensor) -> Tensor:
    """Clamp to [0, 1]; the gradient is zero only where a descent step would move further outside."""
    return _Bounded.apply(x)


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return x.clamp(0.0, 1.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        outwards = ((x <= 0.0) & (grad > 0.0)) | ((x >= 1.0) & (grad < 0.0))
        return grad.masked_fill(outwards, 0.0)
