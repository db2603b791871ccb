"""Volume rendering of packed samples (Max 1995; Mildenhall et al., NeRF, 2020, equation 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trace_bench.representations.nerf.rays import Samples


def render_weights(optical_depth: Tensor, samples: Samples) -> Tensor:
    """w_i = T_i (1 - exp(-tau_i)) with T_i = exp(-sum of the ray's tau before i): [M].

    optical_depth: tau [M], density times step; differentiable.
    """
    return _RenderWeights.apply(optical_depth, samples.ray, samples.counts)


def accumulate(values: Tensor, samples: Samples) -> Tensor:
    """Sums of [M] or [M, D] over the samples of each ray: [R] or [R, D]."""
    shape = (len(samples.counts), *values.shape[1:])
    return values.new_zeros(shape).index_add(0, samples.ray, values)


def opacity(optical_depth: Tensor, samples: Samples) -> Tensor:
    """1 - exp(-sum of tau), which equals the sum of the weights but never exceeds 1: [R]."""
    return -torch.expm1(-accumulate(optical_depth, samples))


class _RenderWeights(torch.autograd.Function):
    """Sums along a ray are differences of sums over all samples, and therefore use double precision."""

    @staticmethod
    def forward(ctx: Any, tau: Tensor, ray: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        before = tau.double().cumsum(0) - tau.double()
        starts = counts.cumsum(0) - counts
        left = torch.exp(-(before - before[starts[ray]])).to(tau.dtype)  # transmittance in front of i
        weights = left * -torch.expm1(-tau)
        ctx.save_for_backward(weights, left - weights, ray, counts)
        return weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """d/d tau_k = g_k T_{k+1} - sum_{i > k} g_i w_i."""
        weights, left_behind, ray, counts = ctx.saved_tensors
        sums = (grad * weights).double().cumsum(0)
        ends = counts.cumsum(0) - 1
        behind = sums[ends[ray]] - sums
        return grad * left_behind - behind.to(grad.dtype), None, None
