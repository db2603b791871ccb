"""Screen-space Gaussians to pixels as an autograd function (gsplat's `rasterize_to_pixels`)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trace_bench.representations.splat_cpu.bands import (
    BAND,
    N_GEOMETRY,
    composite,
    composite_vjp,
    list_bands,
    sum_entries,
)
from trace_bench.representations.splat_cpu.jit import run_jobs
from trace_bench.representations.splat_cpu.projection import double


def _at_least_4(x: np.ndarray) -> np.ndarray:
    """Zero-pad the last axis to 4; the kernels keep 4 channels in registers."""
    missing = 4 - x.shape[-1]
    return np.concatenate([x, np.zeros((*x.shape[:-1], missing))], axis=-1) if missing > 0 else x


def _depth_order(depths: Tensor, starts: list[int]) -> np.ndarray:
    """Flat indices, nearest first within each image; equal depths keep their order."""
    parts = [torch.sort(depths[a:b], stable=True).indices + a for a, b in pairwise(starts)]
    return torch.cat(parts).numpy()


class Compositing(torch.autograd.Function):
    """Composites the flat or batched Gaussians [..., M in total] of I images, in image order.

    Returns colors [I, H, W, D] over the backgrounds and alphas [I, H, W, 1]. Differentiable in means2d
    [..., 2], conics [..., 3], colors [..., D], opacities [...] and backgrounds [I, D].
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        colors: Tensor,
        opacities: Tensor,
        backgrounds: Tensor | None,
        depths: Tensor,  # [...], used for sorting only
        radii: Tensor,  # [..., 2] int32; a Gaussian with a zero is not drawn
        starts: list[int],  # [I + 1], first Gaussian of each image
        size: tuple[int, int],  # width, height
        absgrad: bool,
    ) -> tuple[Tensor, Tensor]:
        width, height = size
        n_images, depth = len(starts) - 1, colors.shape[-1]
        flat = [double(x).reshape(-1, x.shape[-1]) for x in (means2d, conics)]
        geometry = (*flat, double(opacities).reshape(-1))
        reach = radii.reshape(-1, 2).contiguous().numpy()
        padded = _at_least_4(double(colors).reshape(-1, depth))
        order = _depth_order(depths.detach().reshape(-1), starts)
        ids, boxes, offsets = list_bands(geometry[0], reach, order, np.array(starts), width, height)
        color = np.zeros((n_images, height, width, padded.shape[-1]))
        transmittance = np.ones((n_images, height, width))
        spans, firsts = np.empty((len(ids), BAND, 2), np.int32), np.empty((len(ids), BAND, 2))
        inputs = (ids, boxes, offsets, *geometry, padded, spans, firsts)
        run_jobs(len(offsets) - 1, lambda a, b: composite(a, b, *inputs, reach, color, transmittance))
        np.abs(transmittance, out=transmittance)
        ctx.arrays = (inputs, color, transmittance)
        ctx.absgrad = absgrad
        ctx.save_for_backward(means2d, conics, colors, opacities, backgrounds)
        rendered = torch.from_numpy(color[..., :depth])
        left = torch.from_numpy(transmittance)[..., None]
        if backgrounds is not None:
            rendered = rendered + left * backgrounds.detach().double()[:, None, None, :]
        return rendered.to(colors.dtype, copy=True), (1.0 - left).to(colors.dtype)

    @staticmethod
    def backward(ctx: Any, v_rendered: Tensor, v_alphas: Tensor) -> tuple:  # type: ignore[override]
        means2d, conics, colors, opacities, backgrounds = ctx.saved_tensors
        inputs, color, transmittance = ctx.arrays
        ids, boxes, offsets = inputs[:3]
        v_color, behind = _at_least_4(double(v_rendered)), -double(v_alphas)[..., 0]
        v_backgrounds = None
        if backgrounds is not None:
            behind = behind + np.einsum("ihwd,id->ihw", double(v_rendered), double(backgrounds))
            v_backgrounds = torch.from_numpy(np.einsum("ihwd,ihw->id", double(v_rendered), transmittance))
            v_backgrounds = v_backgrounds.to(backgrounds.dtype)
        tail = np.einsum("ihwd,ihwd->ihw", color, v_color) + transmittance * behind
        v_entries = np.zeros((len(ids), N_GEOMETRY + color.shape[-1]))
        again = np.ones_like(transmittance)
        run_jobs(
            len(offsets) - 1,
            lambda a, b: composite_vjp(a, b, *inputs, v_color, tail, again, v_entries, ctx.absgrad),
        )
        total = np.zeros((len(inputs[3]), v_entries.shape[1]))
        sum_entries(ids, boxes, v_entries, total)
        grads = torch.from_numpy(total).to(means2d.dtype)
        if ctx.absgrad:
            means2d.absgrad = grads[:, 2:4].reshape(means2d.shape)
        v_colors = grads[:, N_GEOMETRY : N_GEOMETRY + colors.shape[-1]].reshape(colors.shape)
        return (
            grads[:, 0:2].reshape(means2d.shape), grads[:, 4:7].reshape(conics.shape), v_colors,
            grads[:, 7].reshape(opacities.shape), v_backgrounds, None, None, None, None, None,
        )  # fmt: skip
