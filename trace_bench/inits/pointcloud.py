"""A start from a file: the vertices of any .ply (points, a mesh, 3D Gaussians), with their colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from trace_bench.errors import TraceBenchError
from trace_bench.export import SH_C0, read_vertices
from trace_bench.inits.base import PointCloud

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng

COLOR_COLUMNS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
SH_COLUMNS = ("f_dc_0", "f_dc_1", "f_dc_2")


@dataclass(frozen=True)
class PlyPoints:
    """The vertices of `path`; grey where the file has no colours.

    radius: centre the bounding box on the origin and scale the cloud into this ball; None keeps the file's
        frame.
    max_points: draw this many at random where the file has more; None keeps all.
    """

    path: str
    radius: float | None = None
    max_points: int | None = None

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu") -> PointCloud:
        vertices = read_vertices(Path(self.path).expanduser())
        cloud = PointCloud(
            torch.from_numpy(_table(vertices, ("x", "y", "z"))), torch.from_numpy(read_colors(vertices))
        )
        positions, colors = cloud.positions, cloud.colors
        if self.radius is not None:
            positions = positions - 0.5 * (positions.amin(dim=0) + positions.amax(dim=0))
            furthest = positions.norm(dim=-1).max()
            if furthest == 0.0:
                raise TraceBenchError(f"All points of {self.path} are the same; leave init.radius at null.")
            positions = positions * (self.radius / furthest)
        if self.max_points is not None and len(positions) > self.max_points:
            chosen = torch.randperm(len(positions), generator=rng.generator("init_subset"))[: self.max_points]
            positions, colors = positions[chosen], colors[chosen]
        return PointCloud(positions, colors).to(device)


def read_colors(vertices: np.ndarray) -> np.ndarray:
    """RGB in [0, 1] of a vertex table: float32 [N, 3]; integers count to their type's largest value."""
    names = set(vertices.dtype.names or ())
    for columns in COLOR_COLUMNS:
        if names >= set(columns):
            kind = vertices.dtype[columns[0]]
            scale = 1.0 / np.iinfo(kind).max if np.issubdtype(kind, np.integer) else 1.0
            return np.clip(_table(vertices, columns) * np.float32(scale), 0.0, 1.0)
    if names >= set(SH_COLUMNS):
        return np.clip(0.5 + np.float32(SH_C0) * _table(vertices, SH_COLUMNS), 0.0, 1.0)
    return np.full((len(vertices), 3), 0.5, dtype=np.float32)


def _table(vertices: np.ndarray, columns: tuple[str, ...]) -> np.ndarray:
    return np.stack([vertices[c].astype(np.float32) for c in columns], axis=-1)
