"""Which triangle each pixel sees: a CPU z-buffer (numba), for meshes that are rendered but not optimised."""

from __future__ import annotations

import numpy as np

from trace_bench.representations.splat_cpu.jit import kernel

NEAR = 1e-3  # triangles with a corner closer to the camera plane are not drawn


@kernel
def draw(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    faces: np.ndarray,
    depth: np.ndarray,
    seen: np.ndarray,
    weights: np.ndarray,
) -> None:
    """Fill the buffers with the nearest triangle at each pixel centre.

    x, y, z [V]: corners in pixels (pixel i spans i to i + 1) and depth along the camera axis. Initially,
    depth [H, W] is infinity and seen [H, W] is -1. weights [H, W, 3] are barycentric, perspective-correct.
    """
    height, width = depth.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if z[a] < NEAR or z[b] < NEAR or z[c] < NEAR:
            continue
        area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a])
        if area == 0.0:
            continue
        left = max(int(np.floor(min(x[a], x[b], x[c]) - 0.5)), 0)
        right = min(int(np.ceil(max(x[a], x[b], x[c]) + 0.5)), width)
        top = max(int(np.floor(min(y[a], y[b], y[c]) - 0.5)), 0)
        bottom = min(int(np.ceil(max(y[a], y[b], y[c]) + 0.5)), height)
        for i in range(top, bottom):
            v = i + 0.5
            for j in range(left, right):
                u = j + 0.5
                wa = ((x[b] - u) * (y[c] - v) - (x[c] - u) * (y[b] - v)) / area
                wb = ((x[c] - u) * (y[a] - v) - (x[a] - u) * (y[c] - v)) / area
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                pa, pb, pc = wa / z[a], wb / z[b], wc / z[c]
                here = 1.0 / (pa + pb + pc)
                if here < depth[i, j]:
                    depth[i, j] = here
                    seen[i, j] = f
                    weights[i, j, 0] = pa * here
                    weights[i, j, 1] = pb * here
                    weights[i, j, 2] = pc * here
