"""Init from a mesh: points uniform over its surface, with the colours of its vertices or textures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from trace_bench.external.mesh import TriangleMesh, load_mesh
from trace_bench.external.placement import Placement
from trace_bench.inits.base import seconds_of
from trace_bench.representations.points import PointCloud
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng


@dataclass(frozen=True)
class MeshSurface:
    """`n` points on the triangles of `path`, uniform over their area; grey if there are no colours.

    up, turn_deg, radius: placement of the mesh in the world frame (`Placement`).
    minutes: time it took to create the file; counted as time of the run.
    """

    path: str
    n: int = 10_000
    up: str = "z"
    turn_deg: float = 0.0
    radius: float | None = None
    minutes: float = 0.0

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = "") -> PointCloud:
        path = Path(self.path).expanduser()
        mesh = load_mesh(path).placed(Placement(self.up, self.turn_deg, self.radius))
        cloud = surface_points(mesh, self.n, rng)
        notes = {"file": path.name}
        return PointCloud(cloud.positions, cloud.colors, None, seconds_of(self.minutes), notes).to(device)


def surface_points(mesh: TriangleMesh, n: int, rng: StepRng) -> PointCloud:
    """n points uniform over a mesh."""
    if n < 1:
        raise TraceBenchError(f"init.n must be at least 1, but is {n}.")
    seed = int(torch.randint(2**62, (), generator=rng.generator("init_surface")))
    points, colors = mesh.sample(n, np.random.default_rng(seed))
    return PointCloud(torch.from_numpy(points).float(), torch.from_numpy(colors))
