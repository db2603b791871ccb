"""Points from depth maps, visibility, and distances between point sets. World: z up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.floating[Any]]


def focal_px(fovy_deg: float, height: int) -> float:
    """Focal length in pixels of a centred pinhole camera with square pixels."""
    return 0.5 * height / float(np.tan(0.5 * np.radians(fovy_deg)))


def back_project(depth: Array, mask: NDArray[np.bool_], c2w: Array, fovy_deg: float) -> Array:
    """World points [n, 3] of the pixels in `mask` from z-depth [H, W]; c2w [4, 4] looks along -z (OpenGL)."""
    height, width = depth.shape
    row, column = np.nonzero(mask)
    z = depth[row, column].astype(np.float64)
    focal = focal_px(fovy_deg, height)
    x = (column + 0.5 - 0.5 * width) / focal * z
    y = (0.5 * height - row - 0.5) / focal * z
    return np.stack([x, y, -z], axis=-1) @ c2w[:3, :3].T + c2w[:3, 3]


def seen(
    points: Array, normals: Array, depth: Array, c2w: Array, fovy_deg: float, tolerance: float
) -> NDArray[np.bool_]:
    """Mask [n] of surface points facing a camera and visible in its z-depth map [H, W] (0 if empty)."""
    height, width = depth.shape
    camera = (points - c2w[:3, 3]) @ c2w[:3, :3]
    z = -camera[:, 2]
    focal = focal_px(fovy_deg, height)
    column = np.clip(np.floor(focal * camera[:, 0] / z + 0.5 * width), 0, width - 1).astype(int)
    row = np.clip(np.floor(0.5 * height - focal * camera[:, 1] / z), 0, height - 1).astype(int)
    at = depth[row, column]
    facing = ((c2w[:3, 3] - points) * normals).sum(-1) > 0
    return facing & (at > 0) & (z <= at + tolerance)


def thin(points: Array, spacing: float) -> Array:
    """The mean point of each occupied grid cell, so that density does not matter."""
    if not len(points):
        return points
    cells = np.floor(points / spacing).astype(np.int64)
    cells -= cells.min(axis=0)
    number = np.ravel_multi_index(tuple(cells.T), tuple(cells.max(axis=0) + 1))  # sorted much faster
    _, member, count = np.unique(number, return_inverse=True, return_counts=True)
    total = np.zeros((len(count), 3))
    np.add.at(total, member, points)
    return total / count[:, None]


def rotate_z(points: Array, degrees: float) -> Array:
    """Points [n, 3] rotated about the vertical axis, from +x towards +y."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


def chamfer_distance(a: Array, b: Array) -> float:
    """(mean distance from a to the nearest of b + the same from b to a) / 2; nan if one is empty."""
    if not len(a) or not len(b):
        return float("nan")
    trees = [cKDTree(points, balanced_tree=False, compact_nodes=False) for points in (a, b)]  # built faster
    return 0.5 * sum(float(tree.query(x)[0].mean()) for tree, x in zip(trees, (b, a), strict=True))


def evenly(n: int, wanted: int) -> Sequence[int]:
    """At most `wanted` of the indices 0..n-1, evenly spaced from 0."""
    return [k * n // wanted for k in range(wanted)] if wanted < n else range(n)
