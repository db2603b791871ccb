"""The hash encoding against a naive one, its gradients against finite differences, in both backends."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from trace_bench.representations.nerf import hash_grid, hash_grid_cpu
from trace_bench.representations.nerf.hash_grid import HashGrid
from trace_bench.system.errors import TraceBenchError

GRID = HashGrid(
    levels=4, log2_size=9, base=3, growth=1.7
)  # 4^3 and 6^3 vertices of their own, then shared rows
SMOOTH = HashGrid(levels=4, log2_size=9, base=3, growth=1.7, smooth=True)
BACKENDS = pytest.mark.parametrize("backend", [hash_grid, hash_grid_cpu], ids=["torch", "numba"])


def table_and_positions(grid, n=20, seed=0):
    rng = torch.Generator().manual_seed(seed)
    table = torch.randn(grid.rows, 2, generator=rng, dtype=torch.float64)
    return table, torch.rand(n, 3, generator=rng, dtype=torch.float64)


def naive(grid, table, position):
    """One position and one vertex at a time, from the paper's equations."""
    features, first = [], 0
    for level in range(grid.levels):
        n = math.floor(grid.base * grid.growth**level)
        rows = min((n + 1) ** 3, 2**grid.log2_size)
        total = torch.zeros(2, dtype=torch.float64)
        cell = [min(int(x * n), n - 1) for x in position.tolist()]
        for corner in itertools.product((0, 1), repeat=3):
            vertex, weight = [c + i for c, i in zip(cell, corner, strict=True)], 1.0
            for x, c, i in zip(position.tolist(), cell, corner, strict=True):
                along = x * n - c
                along = along * along * (3 - 2 * along) if grid.smooth else along
                weight *= along if i else 1.0 - along
            if (n + 1) ** 3 <= rows:
                row = vertex[0] + (n + 1) * (vertex[1] + (n + 1) * vertex[2])
            else:
                row = (vertex[0] ^ (vertex[1] * 2654435761) ^ (vertex[2] * 805459861)) % rows
            total = total + weight * table[first + row]
        features.append(total)
        first += rows
    return torch.cat(features)


def test_layout():
    assert GRID.resolutions == (3, 5, 8, 14)
    assert GRID.starts == (0, 64, 64 + 216, 64 + 216 + 512, 64 + 216 + 1024)
    assert HashGrid().resolutions[0] == 16
    assert HashGrid().resolutions[-1] == 4096  # threestudio's finest
    assert HashGrid().width == 32


@BACKENDS
@pytest.mark.parametrize("grid", [GRID, SMOOTH], ids=["linear", "smooth"])
def test_values_are_the_naive_ones(backend, grid):
    table, positions = table_and_positions(grid)
    positions[0], positions[1] = 0.0, 1.0  # the cube's ends belong to its outermost cells
    encoded = backend.encode(grid, table, positions, grid.levels, False)[0].flatten(1)
    torch.testing.assert_close(encoded, torch.stack([naive(grid, table, p) for p in positions]))


@BACKENDS
@pytest.mark.parametrize("grid", [GRID, SMOOTH], ids=["linear", "smooth"])
def test_tangents_are_the_slopes_of_the_values(backend, grid):
    table, positions = table_and_positions(grid)
    tangents = backend.encode(grid, table, positions, grid.levels, True)
    h = 1e-6
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = h
        above, below = (
            backend.encode(grid, table, p, grid.levels, False)[0]
            for p in (positions + step, positions - step)
        )
        torch.testing.assert_close(tangents[1 + axis], (above - below) / (2 * h), rtol=1e-5, atol=1e-5)


@BACKENDS
@pytest.mark.parametrize("tangents", [False, True])
def test_gradient_is_the_transpose(backend, tangents):
    """The encoding is linear in the table: <encode(t), g> = <t, vjp(g)> for all t and g."""
    table, positions = table_and_positions(SMOOTH)
    encoded = backend.encode(SMOOTH, table, positions, 3, tangents)
    grad = torch.randn(encoded.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pulled = backend.encode_vjp(SMOOTH, grad, positions, 3)
    torch.testing.assert_close((encoded * grad).sum(), (table * pulled).sum())


def test_autograd_reaches_the_table():
    table, positions = table_and_positions(GRID, n=3)
    table.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda t: GRID.encode(t, positions, GRID.levels, tangents=True), table, fast_mode=True
    )


def test_levels_that_are_not_active_are_zero_and_get_no_gradient():
    table, positions = table_and_positions(GRID)
    table.requires_grad_()
    encoded = GRID.encode(table, positions, 2)[0].view(-1, 4, 2)
    assert (encoded[:, :2] != 0).any(dim=0).all()
    assert (encoded[:, 2:] == 0).all()
    encoded.square().sum().backward()
    assert (table.grad[: GRID.starts[2]] != 0).any()
    assert (table.grad[GRID.starts[2] :] == 0).all()


def test_smooth_grid_has_normals_without_creases():
    """Across a cell face, the slope of a linear grid jumps; that of a smooth grid does not."""
    for grid, jumps in ((GRID, True), (SMOOTH, False)):
        table, _ = table_and_positions(grid)
        face = torch.tensor([[1 / 3 - 1e-9, 0.21, 0.4], [1 / 3 + 1e-9, 0.21, 0.4]], dtype=torch.float64)
        slopes = grid.encode(table, face, 1, tangents=True)[1:4]
        assert (float((slopes[:, 0] - slopes[:, 1]).abs().max()) > 0.1) == jumps


def test_no_positions_are_no_features():
    table = torch.zeros(GRID.rows, 2, requires_grad=True)
    encoded = GRID.encode(table, torch.zeros(0, 3), 4)
    assert encoded.shape == (1, 0, 8)
    encoded.sum().backward()
    assert (table.grad == 0).all()


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"base": 0}, {"log2_size": 30}, {"growth": 0.5}])
def test_mistakes_are_named(wrong):
    with pytest.raises(TraceBenchError, match=f"hash_grid.*{next(iter(wrong))}"):
        HashGrid(**wrong)
