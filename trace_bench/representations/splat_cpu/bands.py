"""Front-to-back compositing of screen-space Gaussians as in gsplat, and its exact gradient.

Each Gaussian whose alpha = min(0.999, opacity exp(-sigma)) at a pixel is at least 1/255 contributes to it,
nearest first, until the transmittance would fall to 1e-4. Images are split into bands of BAND rows, the unit
of parallel work. A band has its own pixels and a depth-ordered list of the Gaussians that touch it. Gradients
are stored per (band, Gaussian) and summed in that order, so results do not depend on the number of threads.

Each row knows the next pixel that is not full, so that a Gaussian behind full pixels costs next to nothing.
Where many Gaussians meet a small picture, most are.

Along a row, exp(-sigma) is a recurrence: sigma(x + 1) - sigma(x) is linear in x, so each pixel costs two
multiplications instead of an exponential. Where each row begins, and with which values, is kept for the
gradient.
"""

from __future__ import annotations

import math

import numpy as np

from trace_bench.representations.splat_cpu.jit import kernel
from trace_bench.representations.splat_cpu.projection import ALPHA_THRESHOLD

BAND = 8  # rows
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4
TOLERANCE = 1.0 + 1e-9  # beyond this factor on opacity, sigma < 0: rounding broke the conic
N_GEOMETRY = 8  # columns of a gradient row before the colours: x, y, |x|, |y|, conic a, b, c, opacity


@kernel
def list_bands(means2d, radii, order, starts, width, height):
    """Depth-ordered Gaussians of every band: (ids [n], boxes [n, 4], offsets [n_images * n_bands + 1]).

    order [M]: flat indices, nearest first within each image; starts [n_images + 1]: start of each image. A
    box has the rows [begin, end) of the band and the columns [begin, end) that the Gaussian can reach. Boxes
    lie in the order in which they are read: for a hidden Gaussian, no other values are.
    """
    n_bands = (height + BAND - 1) // BAND
    n_images = len(starts) - 1
    reach = np.zeros((len(order), 4), np.int32)  # as boxes, but all rows of the image
    offsets = np.zeros(n_images * n_bands + 1, np.int64)
    for image in range(n_images):
        for i in range(starts[image], starts[image + 1]):
            g = order[i]
            if radii[g, 0] > 0 and radii[g, 1] > 0:
                x, y, radius_x, radius_y = means2d[g, 0], means2d[g, 1], radii[g, 0], radii[g, 1]
                reach[i, 0] = int(min(float(height), max(0.0, np.floor(y - radius_y))))
                reach[i, 1] = int(min(float(height), np.ceil(y + radius_y)))
                reach[i, 2] = int(min(float(width), max(0.0, np.ceil(x - radius_x - 0.5))))
                reach[i, 3] = int(min(float(width), np.floor(x + radius_x - 0.5) + 1.0))
            if reach[i, 0] < reach[i, 1] and reach[i, 2] < reach[i, 3]:
                for band in range(reach[i, 0] // BAND, (reach[i, 1] - 1) // BAND + 1):
                    offsets[image * n_bands + band + 1] += 1
    for job in range(n_images * n_bands):
        offsets[job + 1] += offsets[job]
    ids, boxes, cursor = np.empty(offsets[-1], np.int64), np.empty((offsets[-1], 4), np.int32), offsets.copy()
    for image in range(n_images):
        for i in range(starts[image], starts[image + 1]):
            if not (reach[i, 0] < reach[i, 1] and reach[i, 2] < reach[i, 3]):
                continue
            for band in range(reach[i, 0] // BAND, (reach[i, 1] - 1) // BAND + 1):
                job = image * n_bands + band
                entry = cursor[job]
                ids[entry] = order[i]
                boxes[entry, 0] = max(reach[i, 0], band * BAND)
                boxes[entry, 1] = min(reach[i, 1], (band + 1) * BAND)
                boxes[entry, 2], boxes[entry, 3] = reach[i, 2], reach[i, 3]
                cursor[job] += 1
    return ids, boxes, offsets


@kernel
def _span(x, radius, conic, dy, reach, width):
    """Columns [begin, end) of a row whose centres have sigma <= reach / 2 and lie in the box."""
    a, b, c = conic[0], conic[1], conic[2]
    discriminant = b * b * dy * dy - a * (c * dy * dy - reach)
    if not (discriminant >= 0.0 and a > 0.0):
        return 0, 0
    middle, half = x - b * dy / a - 0.5, math.sqrt(discriminant) / a
    begin = max(0.0, np.ceil(max(middle - half, x - radius - 0.5)))
    end = min(float(width), np.floor(min(middle + half, x + radius - 0.5)) + 1.0)
    return max(0, int(begin)), int(end)


@kernel
def _next_open(jumps, u):
    """The first pixel of a row from u on that is not full; jumps [W + 1]: such a pixel jumps to itself."""
    while jumps[u] != u:
        jumps[u] = jumps[jumps[u]]
        u = jumps[u]
    return u


@kernel
def _is_open(jumps, begin, end):
    """Whether a pixel in columns [begin, end) is not full; jumps of the row."""
    return begin < end and _next_open(jumps, begin) < end


@kernel
def _enter(conic, opacity, dx, dy):
    """opacity exp(-sigma) at (dx, dy), and its factor to the next column."""
    raw = opacity * math.exp(-0.5 * (conic[0] * dx * dx + conic[2] * dy * dy) - conic[1] * dx * dy)
    return raw, math.exp(-conic[0] * (dx + 0.5) - conic[1] * dy)


@kernel
def _draw_row(raw, ratio, decay, most, begin, end, color_g, color, transmittance, jumps):
    """Composite one row of one Gaussian; color [W, D] and transmittance [W] are that row of the image, jumps
    [W + 1] its pixels that are not full."""
    c0, c1, c2, c3 = color_g[0], color_g[1], color_g[2], color_g[3]
    for u in range(begin, end):
        before = transmittance[u]
        if before > 0.0 and raw <= most:
            alpha = min(ALPHA_MAX, raw)
            after = before * (1.0 - alpha)
            if after <= TRANSMITTANCE_MIN:
                transmittance[u] = -before
                jumps[u] = u + 1
            else:
                weight = alpha * before
                color[u, 0] += weight * c0
                color[u, 1] += weight * c1
                color[u, 2] += weight * c2
                color[u, 3] += weight * c3
                for k in range(4, len(color_g)):
                    color[u, k] += weight * color_g[k]
                transmittance[u] = after
        raw *= ratio
        ratio *= decay


@kernel
def composite(
    job_begin, job_end, ids, boxes, offsets, means2d, conics, opacities, colors, spans, firsts,
    radii, color, transmittance,
):  # fmt: skip
    """Fill color [I, H, W, D] (initially 0) and transmittance [I, H, W] (initially 1) of the given bands.

    D is at least 4. A saturated pixel stores its transmittance with a negative sign. The box of an entry that
    is hidden is made empty. For each row of a box, `spans` [n, BAND, 2] gets the columns [begin, end) that
    are drawn, and `firsts` [n, BAND, 2] what `_enter` says of the first one.
    """
    height, width = transmittance.shape[1], transmittance.shape[2]
    n_bands = (height + BAND - 1) // BAND
    jumps = np.empty((BAND, width + 1), np.int32)
    for job in range(job_begin, job_end):
        image, row = job // n_bands, (job % n_bands) * BAND
        for u in range(width + 1):
            for r in range(BAND):
                jumps[r, u] = u
        for entry in range(offsets[job], offsets[job + 1]):
            row_begin, row_end, left, right = boxes[entry]
            while row_begin < row_end and not _is_open(jumps[row_begin - row], left, right):
                row_begin += 1
            boxes[entry, 0] = row_begin
            if row_begin == row_end:
                continue
            g = ids[entry]
            x, y, conic, opacity = means2d[g, 0], means2d[g, 1], conics[g], opacities[g]
            reach, decay = 2.0 * math.log(opacity / ALPHA_THRESHOLD), math.exp(-conic[0])
            most = opacity * TOLERANCE
            for v in range(row_begin, row_end):
                dy = v + 0.5 - y
                begin, end = _span(x, radii[g, 0], conic, dy, reach, width)
                if not _is_open(jumps[v - row], begin, end):
                    end = begin
                spans[entry, v - row, 0], spans[entry, v - row, 1] = begin, end
                if begin < end:
                    raw, ratio = _enter(conic, opacity, begin + 0.5 - x, dy)
                    firsts[entry, v - row, 0], firsts[entry, v - row, 1] = raw, ratio
                    _draw_row(
                        raw, ratio, decay, most, begin, end,
                        colors[g], color[image, v], transmittance[image, v], jumps[v - row],
                    )  # fmt: skip


@kernel
def _add_moments(zeroth, first, second, conic, dy, v_g):
    """Gradient of a row's sigma = a dx^2 / 2 + b dx dy + c dy^2 / 2, from its moments in dx."""
    v_g[0] -= conic[0] * first + conic[1] * dy * zeroth
    v_g[1] -= conic[1] * first + conic[2] * dy * zeroth
    v_g[4] += 0.5 * second
    v_g[5] += dy * first
    v_g[6] += 0.5 * dy * dy * zeroth
    v_g[7] -= zeroth


@kernel
def _draw_row_vjp(
    raw, ratio, decay, most, begin, end, x, conic, dy, color_g, v_color, tail, transmittance, v_g, absgrad
):  # fmt: skip
    """Gradient of `_draw_row` by replaying it; adds to v_g [N_GEOMETRY + D].

    tail [W]: the loss contribution of everything behind, per pixel. With v = d loss / d color,
    d loss / d alpha = T (c . v) - tail / (1 - alpha).
    """
    c0, c1, c2, c3 = color_g[0], color_g[1], color_g[2], color_g[3]
    g0, g1, g2, g3 = 0.0, 0.0, 0.0, 0.0
    zeroth, first, second = 0.0, 0.0, 0.0  # moments in dx of d loss / d sigma
    for u in range(begin, end):
        before = transmittance[u]
        if before > 0.0 and raw <= most:
            alpha = min(ALPHA_MAX, raw)
            after = before * (1.0 - alpha)
            if after <= TRANSMITTANCE_MIN:
                transmittance[u] = -before
            else:
                weight = alpha * before
                v0, v1, v2, v3 = v_color[u, 0], v_color[u, 1], v_color[u, 2], v_color[u, 3]
                seen = (c0 * v0 + c1 * v1) + (c2 * v2 + c3 * v3)
                g0, g1, g2, g3 = g0 + weight * v0, g1 + weight * v1, g2 + weight * v2, g3 + weight * v3
                for k in range(4, len(color_g)):
                    seen += color_g[k] * v_color[u, k]
                    v_g[N_GEOMETRY + k] += weight * v_color[u, k]
                behind = tail[u] - weight * seen
                tail[u] = behind
                transmittance[u] = after
                if raw <= ALPHA_MAX:
                    dx = u + 0.5 - x
                    v_sigma = raw * (behind / (1.0 - alpha) - before * seen)
                    zeroth += v_sigma
                    first += v_sigma * dx
                    second += v_sigma * dx * dx
                    if absgrad:
                        v_g[2] += abs(v_sigma * (conic[0] * dx + conic[1] * dy))
                        v_g[3] += abs(v_sigma * (conic[1] * dx + conic[2] * dy))
        raw *= ratio
        ratio *= decay
    _add_moments(zeroth, first, second, conic, dy, v_g)
    v_g[N_GEOMETRY] += g0
    v_g[N_GEOMETRY + 1] += g1
    v_g[N_GEOMETRY + 2] += g2
    v_g[N_GEOMETRY + 3] += g3


@kernel
def composite_vjp(
    job_begin, job_end, ids, boxes, offsets, means2d, conics, opacities, colors, spans, firsts,
    v_color, tail, transmittance, v_entries, absgrad,
):  # fmt: skip
    """Gradient of `composite` per entry of `ids`: v_entries [n, N_GEOMETRY + D], initially 0.

    boxes, spans, firsts: as `composite` left them. v_color [I, H, W, D]; tail [I, H, W] is overwritten;
    transmittance [I, H, W] must be 1.
    """
    n_bands = (transmittance.shape[1] + BAND - 1) // BAND
    for job in range(job_begin, job_end):
        image, row = job // n_bands, (job % n_bands) * BAND
        for entry in range(offsets[job], offsets[job + 1]):
            row_begin, row_end = boxes[entry, 0], boxes[entry, 1]
            if row_begin == row_end:
                continue
            g = ids[entry]
            x, y, conic, opacity = means2d[g, 0], means2d[g, 1], conics[g], opacities[g]
            decay, most, v_g = math.exp(-conic[0]), opacity * TOLERANCE, v_entries[entry]
            for v in range(row_begin, row_end):
                begin, end = spans[entry, v - row]
                if begin < end:
                    raw, ratio = firsts[entry, v - row]
                    _draw_row_vjp(
                        raw, ratio, decay, most, begin, end, x, conic, v + 0.5 - y,
                        colors[g], v_color[image, v], tail[image, v], transmittance[image, v], v_g, absgrad,
                    )  # fmt: skip
            v_g[7] /= opacity


@kernel
def sum_entries(ids, boxes, v_entries, v_gaussians):
    """Add each entry's gradient to its Gaussian's, in the order of the entries, without empty boxes."""
    for entry in range(len(ids)):
        if boxes[entry, 0] < boxes[entry, 1]:
            g = ids[entry]
            for k in range(v_entries.shape[1]):
                v_gaussians[g, k] += v_entries[entry, k]
