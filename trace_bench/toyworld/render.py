"""Ground-truth pictures and surface points of a union of coloured solids (numba).

Light is fixed in the world and soft, mostly ambient, with no highlights: a surface point looks the same from
everywhere, and its colour stays recognisable in the shade.
"""

from __future__ import annotations

import math

import numpy as np

from trace_bench.toyworld.sdf import BALL, _fast, march, part_normal, scene_distance

_LIGHT = (0.62, 0.33, 0.71)  # unit, from the front, the left and above
_AMBIENT, _DIFFUSE = 0.60, 0.40
_GRID = 3  # samples a side in pixels that straddle an edge


@_fast
def shade(nx: float, ny: float, nz: float) -> float:
    """Brightness in [0.6, 1.0] of a surface with this unit normal: wrapped Lambert."""
    return _AMBIENT + _DIFFUSE * (0.5 + 0.5 * (nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2]))


@_fast
def _pixel_ray(c2w, focal, width, height, u, v, out):  # noqa: ANN001, ANN202
    """Unit world direction through image point (u, v) in pixels, into out; returns the cosine to the view axis."""
    a, b = (u - 0.5 * width) / focal, (0.5 * height - v) / focal
    n = 1.0 / math.sqrt(a * a + b * b + 1.0)
    for k in range(3):
        out[k] = (a * c2w[k, 0] + b * c2w[k, 1] - c2w[k, 2]) * n
    return n


@_fast
def render_view(kinds, params, rotations, centres, radii, colors, c2w, focal, rgba, depth, normal):  # noqa: ANN001, ANN201
    """Fill rgba [H, W, 4] (premultiplied), depth [H, W] (camera z) and normal [H, W, 3] (world) of one view.

    One ray a pixel centre; pixels next to a change of part, or a jump in depth, take 3 x 3 rays instead.
    """
    height, width = depth.shape
    parts = np.empty((height, width), np.int32)
    origin, ray, active = c2w[:3, 3].copy(), np.empty(3), np.empty(kinds.shape[0], np.int64)
    for i in range(height):
        for j in range(width):
            cosine = _pixel_ray(c2w, focal, width, height, j + 0.5, i + 0.5, ray)
            t, part = march(kinds, params, rotations, centres, radii, origin, ray[0], ray[1], ray[2], active)
            parts[i, j] = part
            depth[i, j] = t * cosine
            rgba[i, j, :] = 0.0
            normal[i, j, :] = 0.0
            if part >= 0:
                nx, ny, nz = part_normal(
                    part, kinds, params, rotations, centres,
                    origin[0] + t * ray[0], origin[1] + t * ray[1], origin[2] + t * ray[2],
                )  # fmt: skip
                normal[i, j, 0], normal[i, j, 1], normal[i, j, 2] = nx, ny, nz
                light = shade(nx, ny, nz)
                for k in range(3):
                    rgba[i, j, k] = colors[part, k] * light
                rgba[i, j, 3] = 1.0
    edge = np.zeros((height, width), np.bool_)
    for i in range(height):
        for j in range(width):
            for di, dj in ((0, 1), (1, 0)):
                a, b = i + di, j + dj
                if a < height and b < width:
                    turn = 0.0
                    for k in range(3):
                        turn += normal[i, j, k] * normal[a, b, k]
                    both = parts[i, j] >= 0 and parts[a, b] >= 0
                    if parts[i, j] != parts[a, b] or (both and (turn < 0.85 or abs(depth[i, j] - depth[a, b]) > 0.1)):
                        edge[i, j] = True
                        edge[a, b] = True
    for i in range(height):
        for j in range(width):
            if edge[i, j]:
                _supersample(
                    kinds, params, rotations, centres, radii, colors, c2w, focal, origin, ray, active, rgba, depth, normal, i, j
                )


@_fast
def _supersample(kinds, params, rotations, centres, radii, colors, c2w, focal, origin, ray, active, rgba, depth, normal, i, j):  # noqa: ANN001, ANN202
    """Average colour and coverage of pixel (i, j); depth and normal stay the centre's, or become the hits' mean."""
    height, width = depth.shape
    red, green, blue, hits, deep, mx, my, mz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for a in range(_GRID):
        for b in range(_GRID):
            cosine = _pixel_ray(c2w, focal, width, height, j + (b + 0.5) / _GRID, i + (a + 0.5) / _GRID, ray)
            t, part = march(kinds, params, rotations, centres, radii, origin, ray[0], ray[1], ray[2], active)
            if part >= 0:
                nx, ny, nz = part_normal(
                    part, kinds, params, rotations, centres,
                    origin[0] + t * ray[0], origin[1] + t * ray[1], origin[2] + t * ray[2],
                )  # fmt: skip
                light = shade(nx, ny, nz)
                red += colors[part, 0] * light
                green += colors[part, 1] * light
                blue += colors[part, 2] * light
                hits += 1.0
                deep += t * cosine
                mx, my, mz = mx + nx, my + ny, mz + nz
    count = float(_GRID * _GRID)
    rgba[i, j, 0], rgba[i, j, 1], rgba[i, j, 2], rgba[i, j, 3] = red / count, green / count, blue / count, hits / count
    if hits == 0.0:
        depth[i, j] = 0.0
        normal[i, j, :] = 0.0
    elif depth[i, j] == 0.0:
        length = max(math.sqrt(mx * mx + my * my + mz * mz), 1e-12)
        depth[i, j] = deep / hits
        normal[i, j, 0], normal[i, j, 1], normal[i, j, 2] = mx / length, my / length, mz / length


@_fast
def cross_lines(kinds, params, rotations, centres, radii, starts, directions, length, points, parts):  # noqa: ANN001, ANN201
    """Walk along random lines and record every crossing of the surface; returns the number recorded.

    Isotropic random lines cross a surface with a density uniform in its area (Crofton), so the crossings are
    uniform surface points, hollows included. starts, directions [M, 3]; points [K, 3] and parts [K] are filled.
    """
    found = 0
    for line in range(starts.shape[0]):
        ox, oy, oz = starts[line, 0], starts[line, 1], starts[line, 2]
        dx, dy, dz = directions[line, 0], directions[line, 1], directions[line, 2]
        t, last_t = 0.0, 0.0
        last, _ = scene_distance(kinds, params, rotations, centres, radii, ox, oy, oz)
        while t < length:
            last_t, t = t, t + max(abs(last), 2e-3)
            d, _ = scene_distance(kinds, params, rotations, centres, radii, ox + t * dx, oy + t * dy, oz + t * dz)
            if (d < 0.0) != (last < 0.0):
                low, high = last_t, t
                for _ in range(24):
                    mid = 0.5 * (low + high)
                    m, _ = scene_distance(
                        kinds, params, rotations, centres, radii, ox + mid * dx, oy + mid * dy, oz + mid * dz
                    )
                    if (m < 0.0) == (last < 0.0):
                        low = mid
                    else:
                        high = mid
                if found == points.shape[0]:
                    return found
                points[found, 0], points[found, 1], points[found, 2] = ox + low * dx, oy + low * dy, oz + low * dz
                _, part = scene_distance(
                    kinds, params, rotations, centres, radii, points[found, 0], points[found, 1], points[found, 2]
                )
                parts[found] = part
                found += 1
            last = d
    return found


@_fast
def normals_and_shades(kinds, params, rotations, centres, points, parts, normals, shades):  # noqa: ANN001, ANN201
    """Fill normals [K, 3] and shades [K] of surface points."""
    for i in range(points.shape[0]):
        nx, ny, nz = part_normal(
            parts[i], kinds, params, rotations, centres, points[i, 0], points[i, 1], points[i, 2]
        )  # fmt: skip
        normals[i, 0], normals[i, 1], normals[i, 2] = nx, ny, nz
        shades[i] = shade(nx, ny, nz)


def random_lines(rng: np.random.Generator, n: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """n isotropic lines through a ball: (starts [n, 3], unit directions [n, 3])."""
    directions = rng.normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    helper = np.where(np.abs(directions[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    across = np.cross(directions, helper)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    other = np.cross(directions, across)
    r = radius * np.sqrt(rng.random((n, 1)))
    angle = 2.0 * np.pi * rng.random((n, 1))
    starts = r * (np.cos(angle) * across + np.sin(angle) * other) - radius * directions
    return starts, directions


__all__ = ["BALL", "cross_lines", "normals_and_shades", "random_lines", "render_view", "shade"]
