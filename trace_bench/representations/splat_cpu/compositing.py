"""Front-to-back compositing of screen-space Gaussians, and its exact gradient (gsplat's `rasterize_to_pixels`).

A pixel is drawn by every Gaussian whose alpha = min(0.999, opacity exp(-sigma)) there is at least 1/255, nearest
first, until the transmittance would fall to 1e-4. Images are cut into bands of BAND rows, the unit of parallel work:
a band holds the depth-ordered list of the Gaussians that touch it, its pixels belong to it alone, and gradients are
kept per (band, Gaussian) and summed in that order. The result thus does not depend on the number of threads.

Along a row exp(-sigma) is a recurrence: sigma(x + 1) - sigma(x) is linear in x, so each pixel costs two
multiplications where it would cost an exponential.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trace_bench.representations.splat_cpu.jit import kernel, run_jobs
from trace_bench.representations.splat_cpu.projection import ALPHA_THRESHOLD, double

BAND = 8  # rows
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4
TOLERANCE = 1.0 + 1e-9  # opacity exp(-sigma) above the opacity by more: sigma < 0, a conic broken by rounding
N_GEOMETRY = 8  # columns of a gradient row before the colours: x, y, |x|, |y|, conic a, b, c, opacity


@kernel
def list_bands(means2d, radii, order, starts, height):
    """Depth-ordered Gaussians of every band: (ids [n], offsets [n_images * n_bands + 1]).

    order [M]: flat indices, nearest first within each image; starts [n_images + 1]: where each image begins in it.
    """
    n_bands = (height + BAND - 1) // BAND
    n_images = len(starts) - 1
    first, last = np.empty(len(order), np.int32), np.empty(len(order), np.int32)
    offsets = np.zeros(n_images * n_bands + 1, np.int64)
    for image in range(n_images):
        for i in range(starts[image], starts[image + 1]):
            g = order[i]
            first[i] = 0
            last[i] = -1
            if radii[g, 0] > 0 and radii[g, 1] > 0:
                first[i] = int(max(0, math.floor(means2d[g, 1] - radii[g, 1]))) // BAND
                last[i] = int(min(height - 1, math.ceil(means2d[g, 1] + radii[g, 1]))) // BAND
            for band in range(first[i], last[i] + 1):
                offsets[image * n_bands + band + 1] += 1
    offsets = np.cumsum(offsets)
    ids, cursor = np.empty(offsets[-1], np.int64), offsets.copy()
    for image in range(n_images):
        for i in range(starts[image], starts[image + 1]):
            for band in range(first[i], last[i] + 1):
                job = image * n_bands + band
                ids[cursor[job]] = order[i]
                cursor[job] += 1
    return ids, offsets


@kernel
def _rows(y, radius, row_begin, row_end):
    """Rows of the band that the Gaussian's box covers."""
    begin = max(float(row_begin), math.floor(y - radius))
    return int(begin), int(min(float(row_end), math.ceil(y + radius)))


@kernel
def _span(x, radius, conic, dy, reach, width):
    """Columns [begin, end) of a row whose centres lie within sigma <= reach / 2 and within the box."""
    a, b, c = conic[0], conic[1], conic[2]
    discriminant = b * b * dy * dy - a * (c * dy * dy - reach)
    if discriminant < 0.0:
        return 0, 0
    middle, half = x - b * dy / a - 0.5, math.sqrt(discriminant) / a
    begin = max(0.0, math.ceil(max(middle - half, x - radius - 0.5)))
    end = min(float(width), math.floor(min(middle + half, x + radius - 0.5)) + 1.0)
    return int(begin), int(end)


@kernel
def _enter(conic, opacity, dx, dy):
    """opacity exp(-sigma) at (dx, dy), and the factor to the next column."""
    raw = opacity * math.exp(-0.5 * (conic[0] * dx * dx + conic[2] * dy * dy) - conic[1] * dx * dy)
    return raw, math.exp(-conic[0] * (dx + 0.5) - conic[1] * dy)


@kernel
def _draw_row(raw, ratio, decay, most, begin, end, color_g, color, transmittance):
    """Composite one row of one Gaussian; color [W, D] and transmittance [W] are the image's row."""
    for u in range(begin, end):
        before = transmittance[u]
        if before > 0.0 and raw <= most:
            alpha = min(ALPHA_MAX, raw)
            after = before * (1.0 - alpha)
            if after <= TRANSMITTANCE_MIN:
                transmittance[u] = -before
            else:
                weight = alpha * before
                for k in range(0, color.shape[1], 4):  # four at a time, so that they become one vector
                    color[u, k] += weight * color_g[k]
                    color[u, k + 1] += weight * color_g[k + 1]
                    color[u, k + 2] += weight * color_g[k + 2]
                    color[u, k + 3] += weight * color_g[k + 3]
                transmittance[u] = after
        raw *= ratio
        ratio *= decay


@kernel
def composite(job_begin, job_end, ids, offsets, means2d, conics, opacities, radii, colors, color, transmittance):
    """Fill color [I, H, W, D] (zero before) and transmittance [I, H, W] (one before) of the given bands.

    D is a multiple of 4. A pixel that is full carries the negative of its transmittance.
    """
    height, width = transmittance.shape[1], transmittance.shape[2]
    n_bands = (height + BAND - 1) // BAND
    for job in range(job_begin, job_end):
        image, row = job // n_bands, (job % n_bands) * BAND
        for entry in range(offsets[job], offsets[job + 1]):
            g = ids[entry]
            x, y, conic, opacity = means2d[g, 0], means2d[g, 1], conics[g], opacities[g]
            reach, decay = 2.0 * math.log(opacity / ALPHA_THRESHOLD), math.exp(-conic[0])
            most = opacity * TOLERANCE
            row_begin, row_end = _rows(y, radii[g, 1], row, min(row + BAND, height))
            for v in range(row_begin, row_end):
                dy = v + 0.5 - y
                begin, end = _span(x, radii[g, 0], conic, dy, reach, width)
                if begin < end:
                    raw, ratio = _enter(conic, opacity, begin + 0.5 - x, dy)
                    _draw_row(raw, ratio, decay, most, begin, end, colors[g], color[image, v], transmittance[image, v])


@kernel
def _draw_row_vjp(raw, ratio, decay, most, begin, end, x, conic, dy, color_g, v_color, tail, transmittance, v_g):
    """Gradient of `_draw_row`, replaying it; adds to v_g [N_GEOMETRY + D].

    tail [W]: what the pixel's loss owes to all that lies behind. With v = d loss / d color,
    d loss / d alpha = T (c . v) - tail / (1 - alpha).
    """
    zeroth, first, second = 0.0, 0.0, 0.0  # moments in dx of d loss / d sigma
    for u in range(begin, end):
        before = transmittance[u]
        if before > 0.0 and raw <= most:
            alpha = min(ALPHA_MAX, raw)
            after = before * (1.0 - alpha)
            if after <= TRANSMITTANCE_MIN:
                transmittance[u] = -before
            else:
                weight, seen = alpha * before, 0.0
                for k in range(0, v_color.shape[1], 4):
                    v0, v1, v2, v3 = v_color[u, k], v_color[u, k + 1], v_color[u, k + 2], v_color[u, k + 3]
                    seen += (color_g[k] * v0 + color_g[k + 1] * v1) + (color_g[k + 2] * v2 + color_g[k + 3] * v3)
                    v_g[N_GEOMETRY + k] += weight * v0
                    v_g[N_GEOMETRY + k + 1] += weight * v1
                    v_g[N_GEOMETRY + k + 2] += weight * v2
                    v_g[N_GEOMETRY + k + 3] += weight * v3
                tail[u] -= weight * seen
                transmittance[u] = after
                if raw <= ALPHA_MAX:
                    dx = u + 0.5 - x
                    v_sigma = -raw * (before * seen - tail[u] / (1.0 - alpha))
                    zeroth += v_sigma
                    first += v_sigma * dx
                    second += v_sigma * dx * dx
                    v_g[2] += abs(v_sigma * (conic[0] * dx + conic[1] * dy))
                    v_g[3] += abs(v_sigma * (conic[1] * dx + conic[2] * dy))
        raw *= ratio
        ratio *= decay
    v_g[0] -= conic[0] * first + conic[1] * dy * zeroth
    v_g[1] -= conic[1] * first + conic[2] * dy * zeroth
    v_g[4] += 0.5 * second
    v_g[5] += dy * first
    v_g[6] += 0.5 * dy * dy * zeroth
    v_g[7] -= zeroth


@kernel
def composite_vjp(
    job_begin, job_end, ids, offsets, means2d, conics, opacities, radii, colors, v_color, tail, transmittance, v_entries
):
    """Gradient of `composite` per entry of `ids`: v_entries [n, N_GEOMETRY + D], zero before.

    v_color [I, H, W, D]; tail [I, H, W] is used up; transmittance [I, H, W] is one before.
    """
    height, width = transmittance.shape[1], transmittance.shape[2]
    n_bands = (height + BAND - 1) // BAND
    for job in range(job_begin, job_end):
        image, row = job // n_bands, (job % n_bands) * BAND
        for entry in range(offsets[job], offsets[job + 1]):
            g = ids[entry]
            x, y, conic, opacity = means2d[g, 0], means2d[g, 1], conics[g], opacities[g]
            reach, decay = 2.0 * math.log(opacity / ALPHA_THRESHOLD), math.exp(-conic[0])
            most, v_g = opacity * TOLERANCE, v_entries[entry]
            row_begin, row_end = _rows(y, radii[g, 1], row, min(row + BAND, height))
            for v in range(row_begin, row_end):
                dy = v + 0.5 - y
                begin, end = _span(x, radii[g, 0], conic, dy, reach, width)
                if begin < end:
                    raw, ratio = _enter(conic, opacity, begin + 0.5 - x, dy)
                    _draw_row_vjp(
                        raw, ratio, decay, most, begin, end, x, conic, dy,
                        colors[g], v_color[image, v], tail[image, v], transmittance[image, v], v_g,
                    )  # fmt: skip
            v_g[7] /= opacity


@kernel
def sum_entries(ids, v_entries, v_gaussians):
    """Add each entry's gradient to its Gaussian's, in the order of the entries."""
    for entry in range(len(ids)):
        g = ids[entry]
        for k in range(v_entries.shape[1]):
            v_gaussians[g, k] += v_entries[entry, k]


def _pad4(x: np.ndarray) -> np.ndarray:
    """Zero-pad the last axis to a multiple of 4, the kernels' vector width."""
    missing = -x.shape[-1] % 4
    return np.concatenate([x, np.zeros((*x.shape[:-1], missing))], axis=-1) if missing else x


def _depth_order(depths: Tensor, starts: list[int]) -> np.ndarray:
    """Flat indices, nearest first within each image; equal depths keep their order."""
    parts = [torch.sort(depths[a:b], stable=True).indices + a for a, b in pairwise(starts)]
    return torch.cat(parts).numpy()


class Compositing(torch.autograd.Function):
    """Flat or batched Gaussians [..., M in all] of I images, in the order of the images, to pixels.

    Returns colors [I, H, W, D] over the backgrounds and alphas [I, H, W, 1]. Differentiable in means2d [..., 2],
    conics [..., 3], colors [..., D], opacities [...] and backgrounds [I, D].
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        colors: Tensor,
        opacities: Tensor,
        backgrounds: Tensor | None,
        depths: Tensor,  # [...], for the order alone
        radii: Tensor,  # [..., 2] int32; a Gaussian with a zero is not drawn
        starts: list[int],  # [I + 1] where each image's Gaussians begin
        size: tuple[int, int],  # width, height
        absgrad: bool,
    ) -> tuple[Tensor, Tensor]:
        width, height = size
        n_images, depth = len(starts) - 1, colors.shape[-1]
        flat = [double(x).reshape(-1, x.shape[-1]) for x in (means2d, conics)]
        geometry = (*flat, double(opacities).reshape(-1), radii.reshape(-1, 2).contiguous().numpy())
        padded = _pad4(double(colors).reshape(-1, depth))
        order = _depth_order(depths.detach().reshape(-1), starts)
        ids, offsets = list_bands(geometry[0], geometry[3], order, np.array(starts), height)
        color = np.zeros((n_images, height, width, padded.shape[-1]))
        transmittance = np.ones((n_images, height, width))
        inputs = (ids, offsets, *geometry, padded)
        run_jobs(len(offsets) - 1, lambda a, b: composite(a, b, *inputs, color, transmittance))
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
        ids, offsets = inputs[:2]
        v_color, behind = _pad4(double(v_rendered)), -double(v_alphas)[..., 0]
        v_backgrounds = None
        if backgrounds is not None:
            behind = behind + np.einsum("ihwd,id->ihw", double(v_rendered), double(backgrounds))
            v_backgrounds = torch.from_numpy(np.einsum("ihwd,ihw->id", double(v_rendered), transmittance))
            v_backgrounds = v_backgrounds.to(backgrounds.dtype)
        tail = np.einsum("ihwd,ihwd->ihw", color, v_color) + transmittance * behind
        v_entries = np.zeros((len(ids), N_GEOMETRY + color.shape[-1]))
        again = np.ones_like(transmittance)
        run_jobs(len(offsets) - 1, lambda a, b: composite_vjp(a, b, *inputs, v_color, tail, again, v_entries))
        total = np.zeros((len(inputs[2]), v_entries.shape[1]))
        sum_entries(ids, v_entries, total)
        grads = torch.from_numpy(total).to(means2d.dtype)
        if ctx.absgrad:
            means2d.absgrad = grads[:, 2:4].reshape(means2d.shape)
        v_colors = grads[:, N_GEOMETRY : N_GEOMETRY + colors.shape[-1]].reshape(colors.shape)
        return (
            grads[:, 0:2].reshape(means2d.shape), grads[:, 4:7].reshape(conics.shape), v_colors,
            grads[:, 7].reshape(opacities.shape), v_backgrounds, None, None, None, None, None,
        )  # fmt: skip
