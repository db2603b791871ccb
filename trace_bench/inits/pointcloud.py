"""Init from a file: the vertices of any .ply (points, a mesh, 3D Gaussians), with their colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from trace_bench.external.placement import Placement
from trace_bench.inits.base import seconds_of
from trace_bench.representations.gaussians.ply import (
    finite_table,
    is_splat,
    read_splat_ply,
    read_vertices,
)
from trace_bench.representations.points import PointCloud
from trace_bench.representations.splat_values import PLY_COLUMNS
from trace_bench.representations.stored_colors import color_columns, unit_colors
from trace_bench.system.splat_file import SH_C0

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng

SH_COLUMNS = PLY_COLUMNS["sh0"]


@dataclass(frozen=True)
class PlyPoints:
    """The vertices of `path`; grey if the file has no colours.

    keep_splats: 3D Gaussians keep their sizes, rotations and opacities; false uses only their centres.
    up, turn_deg, radius: placement of the cloud in the world frame (`Placement`); None keeps the file's size.
    max_points: choose this many at random if the file has more; None keeps all.
    minutes: time it took to create the file; counted as time of the run.
    """

    path: str
    keep_splats: bool = True
    up: str = "z"
    turn_deg: float = 0.0
    radius: float | None = None
    max_points: int | None = None
    minutes: float = 0.0

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = "") -> PointCloud:
        path = Path(self.path).expanduser()
        cloud = read_cloud(path, Placement(self.up, self.turn_deg, self.radius), self.keep_splats)
        cloud = PointCloud(
            cloud.positions, cloud.colors, cloud.splats, seconds_of(self.minutes), {"file": path.name}
        )
        return cloud.subset(self.max_points, rng).to(device)


def read_cloud(path: Path, placement: Placement, keep_splats: bool) -> PointCloud:
    """The placed vertices of a .ply; as Gaussians if the file has them and `keep_splats` is set."""
    vertices = read_vertices(path)
    if keep_splats and is_splat(vertices):
        splats = placement.place_splats(read_splat_ply(path))
        return PointCloud(splats["means"], torch.from_numpy(read_colors(vertices, path)), splats)
    positions, _ = placement(torch.from_numpy(finite_table(path, vertices, PLY_COLUMNS["means"])))
    return PointCloud(positions, torch.from_numpy(read_colors(vertices, path)))


def read_colors(vertices: np.ndarray, path: Path = Path("The .ply")) -> np.ndarray:
    """RGB in [0, 1] of the vertex table of `path`: float32 [N, 3]; grey without colours."""
    names = vertices.dtype.names or ()
    if columns := color_columns(names):
        return unit_colors([vertices[column] for column in columns], str(path))
    if set(names) >= set(SH_COLUMNS):
        return np.clip(0.5 + np.float32(SH_C0) * finite_table(path, vertices, SH_COLUMNS), 0.0, 1.0)
    return np.full((len(vertices), 3), 0.5, dtype=np.float32)
