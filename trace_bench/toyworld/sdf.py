"""Signed distances of a few solids, and a ray marcher over their union (numba).

Distances are exact or too small, never too large, so that a step of the full distance cannot pass through a
surface.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

ELLIPSOID, BOX, CYLINDER, CONE, TORUS, CAPSULE, PYRAMID, TUBE, STAR, HEART, PRISM, DOME = range(12)

BALL = 0.85  # radius of a ball that contains every scaled scene
#: What `march_cut` shows of a scene: its back half twice, its front half twice, or only its left half.
WHOLE, BACK_TWICE, FRONT_TWICE, HALF = range(4)
_HIT = 5e-4
_MAX_STEPS = 96
_PLANE = 4e-3  # a ray may pass the plane of a cut by this much

fast = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})


class Solids(NamedTuple):
    """A union of P coloured solids, in the format of the kernels."""

    kinds: np.ndarray  # [P] int64, one of the names above
    params: np.ndarray  # [P, 4] lengths; their meaning depends on the kind, see part_distance
    rotations: np.ndarray  # [P, 3, 3] part to world
    centres: np.ndarray  # [P, 3]
    radii: np.ndarray  # [P] bounding spheres around the centres
    colors: np.ndarray  # [P, 3] in [0, 1]


@fast
def _length2(a: float, b: float) -> float:
    return math.sqrt(a * a + b * b)


@fast
def _box2(a: float, b: float) -> float:
    """Exact 2D distance from offsets (a, b) measured outward from a rectangle's sides."""
    return _length2(max(a, 0.0), max(b, 0.0)) + min(max(a, b), 0.0)


@fast
def _cone(q: float, z: float, h: float, r1: float, r2: float) -> float:
    """Capped cone of half-height h, radius r1 below and r2 above; q is the distance from the axis."""
    cap_x = q - min(q, r1 if z < 0.0 else r2)
    cap_y = abs(z) - h
    kx, ky = r2 - r1, 2.0 * h
    along = ((r2 - q) * kx + (h - z) * ky) / (kx * kx + ky * ky)
    along = min(max(along, 0.0), 1.0)
    side_x, side_y = q - r2 + kx * along, z - h + ky * along
    sign = -1.0 if (side_x < 0.0 and cap_y < 0.0) else 1.0
    return sign * math.sqrt(min(cap_x * cap_x + cap_y * cap_y, side_x * side_x + side_y * side_y))


@fast
def _star(y: float, z: float, r: float, inner: float) -> float:
    """Five-pointed star in the y-z plane, one point up, outer radius r, inner radius r * inner."""
    k1x, k1y, k2x, k2y = 0.809016994375, -0.587785252292, -0.809016994375, -0.587785252292
    y = abs(y)
    d = max(k1x * y + k1y * z, 0.0)
    y, z = y - 2.0 * d * k1x, z - 2.0 * d * k1y
    d = max(k2x * y + k2y * z, 0.0)
    y, z = y - 2.0 * d * k2x, z - 2.0 * d * k2y
    y, z = abs(y), z - r
    bx, by = -k1y * inner, k1x * inner - 1.0
    t = min(max((y * bx + z * by) / (bx * bx + by * by), 0.0), r)
    d = _length2(y - bx * t, z - by * t)
    return d if z * bx - y * by > 0.0 else -d


@fast
def _heart(y: float, z: float, s: float) -> float:
    """Heart in the y-z plane, tip down, height about s; a round arc above a 45 degree wedge."""
    y, z = abs(y) / s, z / s + 0.55
    if y + z > 1.0:
        return (_length2(y - 0.25, z - 0.75) - 0.353553391) * s
    m = 0.5 * max(y + z, 0.0)
    d = math.sqrt(min(y * y + (z - 1.0) * (z - 1.0), (y - m) * (y - m) + (z - m) * (z - m)))
    return (d if y > z else -d) * s


@fast
def part_distance(  # noqa: C901 (one branch per solid)
    kind: int, p: tuple[float, float, float, float], x: float, y: float, z: float
) -> float:
    """Signed distance in the part's own frame. For the lengths p, see each branch."""
    if kind == ELLIPSOID:  # half-axes
        if p[0] == p[1] and p[1] == p[2]:
            return math.sqrt(x * x + y * y + z * z) - p[0]
        k0 = math.sqrt((x / p[0]) ** 2 + (y / p[1]) ** 2 + (z / p[2]) ** 2)
        k1 = math.sqrt((x / p[0] ** 2) ** 2 + (y / p[1] ** 2) ** 2 + (z / p[2] ** 2) ** 2)
        return 0.8 * k0 * (k0 - 1.0) / max(k1, 1e-9)
    if kind == BOX:  # half-sides, rounding
        a, b, c = abs(x) - p[0] + p[3], abs(y) - p[1] + p[3], abs(z) - p[2] + p[3]
        outside = math.sqrt(max(a, 0.0) ** 2 + max(b, 0.0) ** 2 + max(c, 0.0) ** 2)
        return outside + min(max(a, b, c), 0.0) - p[3]
    if kind == CYLINDER:  # radius, half-height, rounding
        return _box2(_length2(x, y) - p[0] + p[2], abs(z) - p[1] + p[2]) - p[2]
    if kind == CONE:  # bottom radius, top radius, half-height, rounding
        return _cone(_length2(x, y), z, p[2] - p[3], p[0] - p[3], max(p[1] - p[3], 0.0)) - p[3]
    if kind == TORUS:  # ring radius, tube radius
        return _length2(_length2(x, y) - p[0], z) - p[1]
    if kind == CAPSULE:  # radius, half-length of the axis
        return math.sqrt(x * x + y * y + (z - min(max(z, -p[1]), p[1])) ** 2) - p[0]
    if kind == PYRAMID:  # half-side of the base, half-height
        side = _length2(2.0 * p[1], p[0])
        slope = (max(abs(x), abs(y)) - p[0]) * 2.0 * p[1] / side + (z + p[1]) * p[0] / side
        return max(slope, -z - p[1])
    if kind == TUBE:  # mean radius, half-thickness, half-height, rounding
        return _box2(abs(_length2(x, y) - p[0]) - p[1] + p[3], abs(z) - p[2] + p[3]) - p[3]
    if kind == STAR:  # outer radius, inner/outer, half-thickness, rounding
        return _box2(_star(y, z, p[0], p[1]), abs(x) - p[2] + p[3]) - p[3]
    if kind == HEART:  # size, half-thickness, rounding
        return _box2(_heart(y, z, p[0]), abs(x) - p[1] + p[2]) - p[2]
    if kind == PRISM:  # gable roof, ridge along x: half-length, half-width, half-height
        side = _length2(2.0 * p[2], p[1])
        slope = (abs(y) - p[1]) * 2.0 * p[2] / side + (z + p[2]) * p[1] / side
        return max(slope, -z - p[2], abs(x) - p[0])
    k0 = math.sqrt((x / p[0]) ** 2 + (y / p[1]) ** 2 + (z / p[2]) ** 2)  # DOME: half-axes; the upper half
    k1 = math.sqrt((x / p[0] ** 2) ** 2 + (y / p[1] ** 2) ** 2 + (z / p[2] ** 2) ** 2)
    return max(0.8 * k0 * (k0 - 1.0) / max(k1, 1e-9), -z)


@fast
def one_part(i: int, s: Solids, x: float, y: float, z: float) -> float:
    """Signed distance of part i at a world point."""
    a, b, c = x - s.centres[i, 0], y - s.centres[i, 1], z - s.centres[i, 2]
    # Scalars instead of row views: a view's reference counting costs several times as much as the
    # distance.
    return part_distance(
        s.kinds[i],
        (s.params[i, 0], s.params[i, 1], s.params[i, 2], s.params[i, 3]),
        s.rotations[i, 0, 0] * a + s.rotations[i, 1, 0] * b + s.rotations[i, 2, 0] * c,
        s.rotations[i, 0, 1] * a + s.rotations[i, 1, 1] * b + s.rotations[i, 2, 1] * c,
        s.rotations[i, 0, 2] * a + s.rotations[i, 1, 2] * b + s.rotations[i, 2, 2] * c,
    )


@fast
def nearest(s: Solids, chosen: np.ndarray, count: int, x: float, y: float, z: float) -> tuple[float, int]:
    """(signed distance to the union of the first ``count`` chosen parts, index of the nearest) at a point.

    Skips parts whose bounding sphere is farther away than the nearest part so far.
    """
    best, part = 1e9, -1
    for k in range(count):
        i = chosen[k]
        a, b, c = x - s.centres[i, 0], y - s.centres[i, 1], z - s.centres[i, 2]
        reach = best + s.radii[i]
        if reach > 0.0 and a * a + b * b + c * c > reach * reach:
            continue
        d = one_part(i, s, x, y, z)
        if d < best:
            best, part = d, i
    return best, part


@fast
def part_normal(i: int, s: Solids, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Unit outward normal of part i at a surface point, by central differences of its distance."""
    e = 5e-4
    nx = one_part(i, s, x + e, y, z) - one_part(i, s, x - e, y, z)
    ny = one_part(i, s, x, y + e, z) - one_part(i, s, x, y - e, z)
    nz = one_part(i, s, x, y, z + e) - one_part(i, s, x, y, z - e)
    n = max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
    return nx / n, ny / n, nz / n


@fast
def march(
    s: Solids, origin: np.ndarray, dx: float, dy: float, dz: float, active: np.ndarray
) -> tuple[float, int]:
    """(distance along the unit ray, part hit), or (0, -1) if the ray hits nothing.

    The ray can hit only parts whose bounding sphere it crosses; active [P] is scratch space for their
    indices.
    """
    count, start, end = 0, 1e9, 0.0
    for i in range(s.kinds.shape[0]):
        a, b, c = s.centres[i, 0] - origin[0], s.centres[i, 1] - origin[1], s.centres[i, 2] - origin[2]
        along = a * dx + b * dy + c * dz
        gap = s.radii[i] * s.radii[i] - (a * a + b * b + c * c - along * along)
        if gap > 0.0:
            half = math.sqrt(gap)
            active[count] = i
            count += 1
            start, end = min(start, along - half), max(end, along + half)
    t = max(start, 0.0)
    for _ in range(_MAX_STEPS):
        if t >= end:
            return 0.0, -1
        d, part = nearest(s, active, count, origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz)
        if d < _HIT:
            return t, part
        t += d
    return 0.0, -1


@fast
def is_copied(cut: int, x: float) -> bool:
    """Whether a point with this x is on the side that `cut` replaces by the other half, turned by 180°."""
    return (cut == BACK_TWICE and x > 0.0) or (cut == FRONT_TWICE and x < 0.0)


@fast
def march_cut(
    s: Solids, origin: np.ndarray, dx: float, dy: float, dz: float, cut: int, every: np.ndarray
) -> tuple[float, int, float]:
    """(distance along the unit ray, part hit, its signed distance there) in a scene that is cut.

    The third value is well below 0 where the ray enters a solid through the plane of the cut. The part is -1
    if the ray hits nothing; every [P] are the indices of all parts.
    """
    along = -(origin[0] * dx + origin[1] * dy + origin[2] * dz)
    gap = BALL * BALL - (origin[0] ** 2 + origin[1] ** 2 + origin[2] ** 2 - along * along)
    if gap <= 0.0:
        return 0.0, -1, 0.0
    t, end = max(along - math.sqrt(gap), 0.0), along + math.sqrt(gap)
    for _ in range(4 * _MAX_STEPS):
        if t >= end:
            break
        x, y, z = origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz
        sign = -1.0 if is_copied(cut, x) else 1.0
        d, part = nearest(s, every, len(every), sign * x, sign * y, z)
        free = max(d, -y) if cut == HALF else d
        if free < _HIT:
            return t, part, d
        # Beyond the plane x = 0, the other half may be nearer than this one.
        t += free if cut == HALF else min(free, max(abs(x), _PLANE))
    return 0.0, -1, 0.0
