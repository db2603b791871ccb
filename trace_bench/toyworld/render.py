"""Ground-truth images and surface points of a union of coloured solids (numba).

The light is fixed in the world, soft, mostly ambient, without highlights: a surface point looks the same from
every view, and its colour stays recognisable in the shade.
"""

from __future__ import annotations

import math

import numpy as np

from trace_bench.toyworld.sdf import (
    HALF,
    WHOLE,
    Solids,
    fast,
    is_copied,
    march,
    march_cut,
    nearest,
    part_normal,
)

_LIGHT = (0.62, 0.33, 0.71)  # unit, from the front left and above
_AMBIENT, _DIFFUSE = 0.60, 0.40
_GRID = 3  # samples a side in edge pixels
_FOLD = 0.85  # neighbouring pixels form an edge if the cosine of their normals is below this ...
_JUMP = 0.1  # ... or if their depths differ by more than this
_INSIDE = -2e-3  # a hit this far inside a solid is on the plane of a cut


@fast
def shade(nx: float, ny: float, nz: float) -> float:
    """Brightness in [0.6, 1.0] of a surface with this unit normal: wrapped Lambert."""
    return _AMBIENT + _DIFFUSE * (0.5 + 0.5 * (nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2]))


@fast
def _trace(
    s: Solids,
    c2w: np.ndarray,
    origin: np.ndarray,
    a: float,
    b: float,
    active: np.ndarray,
    hit: np.ndarray,
    cut: int,
) -> int:
    """Trace the ray through (a, b), right and up on the image plane at distance 1; returns the part hit.

    Writes camera-z depth, world normal (3) and shaded colour (3) to hit [7].
    """
    dx = a * c2w[0, 0] + b * c2w[0, 1] - c2w[0, 2]
    dy = a * c2w[1, 0] + b * c2w[1, 1] - c2w[1, 2]
    dz = a * c2w[2, 0] + b * c2w[2, 1] - c2w[2, 2]
    n = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
    dx, dy, dz = dx * n, dy * n, dz * n
    if cut != WHOLE:
        return _trace_cut(s, origin, dx, dy, dz, n, active, hit, cut)
    t, part = march(s, origin, dx, dy, dz, active)
    if part >= 0:
        nx, ny, nz = part_normal(part, s, origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz)
        light = shade(nx, ny, nz)
        hit[0], hit[1], hit[2], hit[3] = t * n, nx, ny, nz
        for k in range(3):
            hit[4 + k] = s.colors[part, k] * light
    return part


@fast
def _trace_cut(
    s: Solids,
    origin: np.ndarray,
    dx: float,
    dy: float,
    dz: float,
    n: float,
    active: np.ndarray,
    hit: np.ndarray,
    cut: int,
) -> int:
    """The same for a unit ray in a scene that is cut. A copied half keeps the shading of the original."""
    for i in range(active.shape[0]):
        active[i] = i
    t, part, inside = march_cut(s, origin, dx, dy, dz, cut, active)
    if part < 0:
        return part
    x, y, z = origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz
    sign = -1.0 if is_copied(cut, x) else 1.0
    if inside < _INSIDE and cut == HALF:
        nx, ny, nz = 0.0, -1.0, 0.0
    elif inside < _INSIDE:
        nx, ny, nz = (-sign if dx > 0.0 else sign), 0.0, 0.0
    else:
        nx, ny, nz = part_normal(part, s, sign * x, sign * y, z)
    light = shade(nx, ny, nz)
    hit[0], hit[1], hit[2], hit[3] = t * n, sign * nx, sign * ny, nz
    for k in range(3):
        hit[4 + k] = s.colors[part, k] * light
    return part


@fast
def render_view(
    s: Solids,
    c2w: np.ndarray,
    focal: float,
    rgba: np.ndarray,
    depth: np.ndarray,
    normal: np.ndarray,
    cut: int,
) -> None:
    """Fill rgba [H, W, 4] (premultiplied), depth [H, W] (camera z) and normal [H, W, 3] (world) of one view.

    One ray per pixel centre; edge pixels use 3 x 3 rays for colour and coverage instead.
    """
    height, width = depth.shape
    parts = np.empty((height, width), np.int32)
    origin, active, hit = c2w[:3, 3].copy(), np.empty(s.kinds.shape[0], np.int64), np.empty(7)
    rgba[:], depth[:], normal[:] = 0.0, 0.0, 0.0
    for i in range(height):
        for j in range(width):
            a, b = (j + 0.5 - 0.5 * width) / focal, (0.5 * height - i - 0.5) / focal
            parts[i, j] = _trace(s, c2w, origin, a, b, active, hit, cut)
            if parts[i, j] >= 0:
                depth[i, j] = hit[0]
                for k in range(3):
                    normal[i, j, k] = hit[1 + k]
                    rgba[i, j, k] = hit[4 + k]
                rgba[i, j, 3] = 1.0
    edge = _edges(parts, depth, normal)
    for i in range(height):
        for j in range(width):
            if edge[i, j]:
                _supersample(s, c2w, origin, focal, active, hit, i, j, rgba, depth, normal, cut)


@fast
def _edges(parts: np.ndarray, depth: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """[H, W] bool: pixels next to another part, a fold, or a depth discontinuity."""
    height, width = parts.shape
    edge = np.zeros((height, width), np.bool_)
    for i in range(height):
        for j in range(width):
            for a, b in ((i, j + 1), (i + 1, j)):
                if a >= height or b >= width:
                    continue
                differs = parts[i, j] != parts[a, b]
                if not differs and parts[i, j] >= 0:
                    turn = 0.0
                    for k in range(3):
                        turn += normal[i, j, k] * normal[a, b, k]
                    differs = turn < _FOLD or abs(depth[i, j] - depth[a, b]) > _JUMP
                if differs:
                    edge[i, j] = True
                    edge[a, b] = True
    return edge


@fast
def _supersample(
    s: Solids,
    c2w: np.ndarray,
    origin: np.ndarray,
    focal: float,
    active: np.ndarray,
    hit: np.ndarray,
    i: int,
    j: int,
    rgba: np.ndarray,
    depth: np.ndarray,
    normal: np.ndarray,
    cut: int,
) -> None:
    """Average colour and coverage of pixel (i, j); depth and normal too if its centre ray hit nothing."""
    height, width = depth.shape
    total, hits = np.zeros(7), 0.0
    for u in range(_GRID):
        for v in range(_GRID):
            a = (j + (v + 0.5) / _GRID - 0.5 * width) / focal
            b = (0.5 * height - i - (u + 0.5) / _GRID) / focal
            if _trace(s, c2w, origin, a, b, active, hit, cut) >= 0:
                hits += 1.0
                for k in range(7):
                    total[k] += hit[k]
    count = float(_GRID * _GRID)
    rgba[i, j, :3], rgba[i, j, 3] = total[4:] / count, hits / count
    if hits > 0.0 and depth[i, j] == 0.0:
        depth[i, j] = total[0] / hits
        normal[i, j] = total[1:4] / max(math.sqrt((total[1:4] ** 2).sum()), 1e-12)


@fast
def cross_lines(
    s: Solids,
    starts: np.ndarray,
    directions: np.ndarray,
    length: float,
    points: np.ndarray,
    parts: np.ndarray,
) -> int:
    """Walk along random lines and record every surface crossing; returns the number recorded.

    Isotropic random lines cross a surface with density uniform in its area (Crofton), so the crossings are
    uniform surface points, including cavities. starts, directions [M, 3]; fills points [K, 3] and
    parts [K].
    """
    everything = np.arange(s.kinds.shape[0])
    n, found = len(everything), 0
    for line in range(starts.shape[0]):
        o, d = starts[line], directions[line]
        t = 0.0
        last, _ = nearest(s, everything, n, o[0], o[1], o[2])
        while t < length and found < points.shape[0]:
            before, t = t, t + max(abs(last), 2e-3)
            now, _ = nearest(s, everything, n, o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
            if (now < 0.0) != (last < 0.0):
                low, high = before, t
                for _ in range(24):
                    mid = 0.5 * (low + high)
                    value, _ = nearest(
                        s, everything, n, o[0] + mid * d[0], o[1] + mid * d[1], o[2] + mid * d[2]
                    )
                    if (value < 0.0) == (last < 0.0):
                        low = mid
                    else:
                        high = mid
                points[found] = o + low * d
                p = points[found]
                _, parts[found] = nearest(s, everything, n, p[0], p[1], p[2])
                found += 1
            last = now
    return found


@fast
def normals_and_shades(
    s: Solids, points: np.ndarray, parts: np.ndarray, normals: np.ndarray, shades: np.ndarray
) -> None:
    """Fill normals [K, 3] and shades [K] of surface points."""
    for i in range(points.shape[0]):
        nx, ny, nz = part_normal(parts[i], s, points[i, 0], points[i, 1], points[i, 2])
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
