"""Multi-resolution hash encoding (Müller et al., Instant Neural Graphics Primitives, 2022, section 3).

This file is plain PyTorch for any device; on the CPU, numba kernels compute the same several times faster.
The encoding can also return its spatial derivatives, so that a normal, and a loss on it, need one backward
pass and no second-order graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trace_bench.representations.nerf.hash_grid_cpu import encode as encode_on_cpu
from trace_bench.representations.nerf.hash_grid_cpu import encode_vjp as encode_vjp_on_cpu
from trace_bench.representations.nerf.hash_layout import FEATURES, HashLayout

PRIMES = (1, 2654435761, 805459861)  # equation 4


@dataclass(frozen=True)
class HashGrid(HashLayout):
    """The encoding on a table with this layout."""

    def encode(self, table: Tensor, positions: Tensor, active: int, tangents: bool = False) -> Tensor:
        """Features of positions [N, 3] in [0, 1]^3: [1, N, width], or [4, N, width] with tangents.

        table: [rows, 2]; receives gradients, positions do not.
        active: levels in use, from the coarsest; features of the others are zero.
        tangents: adds rows 1 to 3, the derivatives along x, y and z.
        """
        return _Encode.apply(table, positions, self, min(active, self.levels), tangents)

    def corners(self, positions: Tensor, level: int, tangents: bool) -> tuple[Tensor, list[Tensor]]:
        """The eight vertices around each position: table rows [8, N] and interpolation weights [8, N]; with
        tangents, also the weights' derivatives along x, y and z.

        The vertex dimension comes first, so that the values of one vertex are contiguous.
        """
        resolution = self.resolutions[level]
        scaled = positions.t() * resolution
        cell = scaled.floor().clamp_(0, resolution - 1)
        along = scaled - cell
        upper, slope = along, torch.ones_like(along)
        if self.smooth:
            upper, slope = along * along * (3.0 - 2.0 * along), 6.0 * along * (1.0 - along)
        value = torch.stack([1.0 - upper, upper])  # [2, 3, N]
        weights = [_outer(*value.unbind(1))]
        if tangents:
            derivative = torch.stack([-slope * resolution, slope * resolution])
            for axis in range(3):
                factors = list(value.unbind(1))
                factors[axis] = derivative[:, axis]
                weights.append(_outer(*factors))
        return self._rows(cell.long(), level), weights

    def _rows(self, cell: Tensor, level: int) -> Tensor:
        """Table rows [8, N] of the vertices of cells [3, N], in the order of `_outer`."""
        vertex = torch.stack([cell, cell + 1])  # [2, 3, N]
        start, size = self.starts[level], self.starts[level + 1] - self.starts[level]
        side = self.resolutions[level] + 1
        is_dense = side**3 <= size
        factors = (1, side, side * side) if is_dense else PRIMES
        x, y, z = (vertex[:, axis] * factor for axis, factor in enumerate(factors))
        x, y = x[:, None, None], y[:, None]
        rows = x + (y + z) if is_dense else (x ^ (y ^ z)).bitwise_and_(size - 1)
        return rows.add_(start).flatten(0, 2)


def _outer(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """All products of entries of three [2, N] tensors, z fastest: [8, N]."""
    return (x[:, None, None] * (y[:, None] * z)).flatten(0, 2)


class _Encode(torch.autograd.Function):
    """Saves only the positions for the backward pass; working level by level limits the memory."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, table: Tensor, positions: Tensor, grid: HashGrid, active: int, tangents: bool
    ) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.grid, ctx.active, ctx.tangents = grid, active, tangents
        compute = encode_on_cpu if positions.device.type == "cpu" else encode
        return compute(grid, table, positions, active, tangents).flatten(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        (positions,) = ctx.saved_tensors
        grid: HashGrid = ctx.grid
        grad = grad.unflatten(2, (grid.levels, FEATURES))
        compute = encode_vjp_on_cpu if positions.device.type == "cpu" else encode_vjp
        return compute(grid, grad, positions, ctx.active), None, None, None, None


def encode(grid: HashGrid, table: Tensor, positions: Tensor, active: int, tangents: bool) -> Tensor:
    """The features [1 or 4, N, levels, 2], on any device."""
    out = positions.new_zeros(4 if tangents else 1, len(positions), grid.levels, FEATURES)
    for level in range(active):
        rows, weights = grid.corners(positions, level, tangents)
        bags = rows.t().contiguous()
        for k, weight in enumerate(weights):
            out[k, :, level] = torch.nn.functional.embedding_bag(
                bags, table, per_sample_weights=weight.t().contiguous(), mode="sum"
            )
    return out


def encode_vjp(grid: HashGrid, grad: Tensor, positions: Tensor, active: int) -> Tensor:
    """Gradient [rows, 2] of the table, given grad [1 or 4, N, levels, 2], on any device."""
    columns = grad.new_zeros(FEATURES, grid.rows)  # one contiguous column per feature
    for level in range(active):
        rows, weights = grid.corners(positions, level, grad.shape[0] == 4)
        for feature in range(FEATURES):
            share = weights[0] * grad[0, :, level, feature]
            for k in range(1, len(weights)):
                share.addcmul_(weights[k], grad[k, :, level, feature].expand_as(share))
            columns[feature].index_add_(0, rows.flatten(), share.flatten())
    return columns.t().contiguous()
