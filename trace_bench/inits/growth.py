"""Grows coloured vertices into a dense point cloud (GaussianDreamer, Yi et al. 2024)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree


def grow(
    vertices: np.ndarray, colors: np.ndarray, candidates: int, reach: float, brighten: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points uniform in the vertices' bounding box and closer than `reach` to a vertex, then the vertices.

    vertices [V, 3], colors [V, 3]. A grown point has the colour of its nearest vertex, with each channel
    brightened by up to `brighten`, without clipping. The random numbers are those of the released loop over
    single points, with seed 0: first all positions, then three per accepted point, in order.

    Returns: positions [N, 3] and colours [N, 3], float64.
    """
    random = np.random.RandomState(0)  # the released code's stream
    vertices, colors = vertices.astype(np.float64), colors.astype(np.float64)
    points = random.uniform(vertices.min(axis=0), vertices.max(axis=0), size=(candidates, 3))
    distance, nearest = cKDTree(vertices).query(points, distance_upper_bound=reach)
    near = distance < reach
    grown = colors[nearest[near]] + brighten * random.random_sample((int(near.sum()), 3))
    return np.concatenate([points[near], vertices]), np.concatenate([grown, colors])
