"""Renders rays from the field and the samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trace_bench.representations.nerf.field import Field
from trace_bench.representations.nerf.rays import Samples
from trace_bench.representations.nerf.volume import accumulate, opacity, render_weights

CHUNK = 1 << 14  # samples per evaluation without gradients
VISIBLE = 1e-4  # without gradients, samples with smaller weight get no colour

Shader = Callable[[Tensor, Tensor], Tensor]  # albedo, normals [M, 3] -> colours [M, 3]


@dataclass(frozen=True)
class RayColors:
    """What R rays see, from the M samples on them."""

    color: Tensor  # [R, 3] of the field only, over black
    alpha: Tensor  # [R]
    distance: Tensor  # [R] sum of w t
    variance: Tensor | None  # [R] sum of w (t - distance)^2; None without gradients
    normal: Tensor | None  # [R, 3] sum of w n
    weights: Tensor  # [M]
    normals: Tensor | None  # [M, 3] unit


def look(
    field: Field, samples: Samples, step: float, with_normals: bool = False, shader: Shader | None = None
) -> RayColors:
    """Render the rays; differentiable in the field's parameters if gradients are recorded."""
    if not torch.is_grad_enabled():
        return _look_only(field, samples, step, with_normals)
    normals = None
    if with_normals or shader is not None:
        density, colors, normals = field.density_color_normal(samples.positions)
        colors = colors if shader is None else shader(colors, normals)
    else:
        density, colors = field.density_and_color(samples.positions)
    tau = density * step
    weights = render_weights(tau, samples)
    distance = accumulate(weights * samples.t, samples)
    variance = accumulate(weights * (samples.t - distance[samples.ray]).square(), samples)
    return RayColors(
        accumulate(weights[:, None] * colors, samples),
        opacity(tau, samples),
        distance,
        variance,
        None if normals is None else accumulate(weights[:, None] * normals, samples),
        weights,
        normals,
    )


def _look_only(field: Field, samples: Samples, step: float, with_normals: bool) -> RayColors:
    """Like `look` without gradients or shading; computes colours and normals of visible samples only."""
    tau = _chunked(lambda p: field.density(p)[:, None], samples.positions, 1)[:, 0] * step
    weights = render_weights(tau, samples)
    (visible,) = (weights > VISIBLE).nonzero(as_tuple=True)
    n = len(samples.counts)

    def appearance(positions: Tensor) -> Tensor:
        if not with_normals:
            return field.density_and_color(positions)[1]
        _, colors, normals = field.density_color_normal(positions)
        return torch.cat([colors, normals], dim=-1)

    values = _chunked(appearance, samples.positions[visible], 6 if with_normals else 3)
    summed = values.new_zeros(n, values.shape[1]).index_add(
        0, samples.ray[visible], weights[visible, None] * values
    )
    return RayColors(
        summed[:, :3],
        opacity(tau, samples),
        accumulate(weights * samples.t, samples),
        None,
        summed[:, 3:] if with_normals else None,
        weights,
        None,
    )


def _chunked(function: Callable[[Tensor], Tensor], positions: Tensor, width: int) -> Tensor:
    """function(positions) [M, width], evaluated in chunks."""
    out = positions.new_empty(len(positions), width)
    for begin in range(0, len(positions), CHUNK):
        out[begin : begin + CHUNK] = function(positions[begin : begin + CHUNK])
    return out
