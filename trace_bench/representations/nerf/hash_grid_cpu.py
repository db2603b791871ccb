"""Numba CPU kernels of the hash encoding; see `hash_grid.py` for the definitions."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from trace_bench.representations.nerf.hash_layout import FEATURES, HashLayout
from trace_bench.representations.splat_cpu.jit import kernel, run_jobs

BLOCK = 2048  # positions per job


def encode(grid: HashLayout, table: Tensor, positions: Tensor, active: int, tangents: bool) -> Tensor:
    """The features [1 or 4, N, levels, 2]; threads work on blocks of positions."""
    out = positions.new_zeros(4 if tangents else 1, len(positions), grid.levels, FEATURES)
    arrays = positions.contiguous().numpy(), table.detach().contiguous().numpy(), out.numpy()
    layout = _layout(grid, active)

    def blocks(begin: int, end: int) -> None:
        _encode(*arrays, *layout, grid.smooth, begin * BLOCK, min(end * BLOCK, len(positions)))

    run_jobs(-(-len(positions) // BLOCK), blocks)
    return out


def encode_vjp(grid: HashLayout, grad: Tensor, positions: Tensor, active: int) -> Tensor:
    """Gradient [rows, 2] of the table, given grad [1 or 4, N, levels, 2]. Threads work on levels, so
    that the order of summation is always the same."""
    out = grad.new_zeros(grid.rows, FEATURES)
    arrays = positions.contiguous().numpy(), grad.contiguous().numpy(), out.numpy()
    layout = _layout(grid, active)

    def levels(begin: int, end: int) -> None:
        _encode_vjp(*arrays, *layout, grid.smooth, begin, end)

    run_jobs(active, levels)
    return out


def _layout(grid: HashLayout, active: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per level in use: cells a side, first row, and number of hashed rows (0 if each vertex has a row)."""
    resolutions, starts = np.array(grid.resolutions), np.array(grid.starts)
    rows = np.diff(starts)
    shared = np.where((resolutions + 1) ** 3 > rows, rows, 0)
    return resolutions[:active], starts[:active], shared[:active]


@kernel
def _axis(x, resolution, smooth):
    """One coordinate: its cell, the weight of the cell's upper vertex, and that weight's derivative."""
    scaled = x * resolution
    cell = min(max(int(scaled), 0), resolution - 1)
    along = scaled - cell
    if smooth:
        return cell, along * along * (3.0 - 2.0 * along), 6.0 * along * (1.0 - along) * resolution
    return cell, along, 1.0 * resolution


@kernel
def _row(x, y, z, resolution, shared):
    """Table row of a vertex within its level."""
    if shared > 0:
        return (x ^ (y * 2654435761) ^ (z * 805459861)) & (shared - 1)
    side = resolution + 1
    return x + side * (y + side * z)


@kernel
def _values(table, out, n, level, x, u, y, v, z, w, resolution, start, shared):
    """Weights u, v, w of the upper vertices of cell (x, y, z) -> out[0, n, level]."""
    p, q = 0.0, 0.0
    for corner in range(8):
        i, j, k = corner >> 2, (corner >> 1) & 1, corner & 1
        weight = (u if i else 1.0 - u) * (v if j else 1.0 - v) * (w if k else 1.0 - w)
        row = start + _row(x + i, y + j, z + k, resolution, shared)
        p += weight * table[row, 0]
        q += weight * table[row, 1]
    out[0, n, level, 0], out[0, n, level, 1] = p, q


@kernel
def _slopes(table, out, n, level, x, u, du, y, v, dv, z, w, dw, resolution, start, shared):
    """Derivatives along x, y, z -> out[1:4, n, level]."""
    px, py, pz, qx, qy, qz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for corner in range(8):
        i, j, k = corner >> 2, (corner >> 1) & 1, corner & 1
        a, b, c = u if i else 1.0 - u, v if j else 1.0 - v, w if k else 1.0 - w
        ax, by, cz = (du if i else -du) * b * c, a * (dv if j else -dv) * c, a * b * (dw if k else -dw)
        row = start + _row(x + i, y + j, z + k, resolution, shared)
        p, q = table[row, 0], table[row, 1]
        px, py, pz = px + ax * p, py + by * p, pz + cz * p
        qx, qy, qz = qx + ax * q, qy + by * q, qz + cz * q
    out[1, n, level, 0], out[2, n, level, 0], out[3, n, level, 0] = px, py, pz
    out[1, n, level, 1], out[2, n, level, 1], out[3, n, level, 1] = qx, qy, qz


@kernel
def _encode(positions, table, out, resolutions, starts, shared, smooth, begin, end):
    for n in range(begin, end):
        for level in range(resolutions.shape[0]):
            resolution, start, size = resolutions[level], starts[level], shared[level]
            x, u, du = _axis(positions[n, 0], resolution, smooth)
            y, v, dv = _axis(positions[n, 1], resolution, smooth)
            z, w, dw = _axis(positions[n, 2], resolution, smooth)
            _values(table, out, n, level, x, u, y, v, z, w, resolution, start, size)
            if out.shape[0] == 4:
                _slopes(table, out, n, level, x, u, du, y, v, dv, z, w, dw, resolution, start, size)


@kernel
def _encode_vjp(positions, grad, out, resolutions, starts, shared, smooth, begin, end):
    tangents = grad.shape[0] == 4
    for level in range(begin, end):
        resolution, start, size = resolutions[level], starts[level], shared[level]
        for n in range(positions.shape[0]):
            x, u, du = _axis(positions[n, 0], resolution, smooth)
            y, v, dv = _axis(positions[n, 1], resolution, smooth)
            z, w, dw = _axis(positions[n, 2], resolution, smooth)
            for corner in range(8):
                i, j, k = corner >> 2, (corner >> 1) & 1, corner & 1
                a, b, c = u if i else 1.0 - u, v if j else 1.0 - v, w if k else 1.0 - w
                p, q = a * b * c * grad[0, n, level, 0], a * b * c * grad[0, n, level, 1]
                if tangents:
                    ax, by = (du if i else -du) * b * c, a * (dv if j else -dv) * c
                    cz = a * b * (dw if k else -dw)
                    p += ax * grad[1, n, level, 0] + by * grad[2, n, level, 0] + cz * grad[3, n, level, 0]
                    q += ax * grad[1, n, level, 1] + by * grad[2, n, level, 1] + cz * grad[3, n, level, 1]
                row = start + _row(x + i, y + j, z + k, resolution, size)
                out[row, 0] += p
                out[row, 1] += q
