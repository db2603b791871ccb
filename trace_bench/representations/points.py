"""Initial points of a 3D representation.

World frame: z is up, the front faces +x, the object is centred at the origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trace_bench.representations.splat_values import splat_problem
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng


@dataclass(frozen=True)
class PointCloud:
    """Initial points of a 3D representation."""

    positions: Tensor  # [N, 3] float, world units
    colors: Tensor  # [N, 3] float, RGB, nominally in [0, 1]
    #: parameters as from gaussians.ply.read_splat_ply, if the init consists of Gaussians
    splats: Mapping[str, Tensor] | None = None
    #: time spent on the init elsewhere: in another run or system, or when the cache was filled
    seconds: float = 0.0
    #: entries for the manifest
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = tuple(self.positions.shape), tuple(self.colors.shape)
        if self.positions.ndim != 2 or self.positions.shape[1] != 3 or shapes[0] != shapes[1]:
            raise TraceBenchError(
                f"A point cloud needs positions [N, 3] and as many colors [N, 3], but got {shapes[0]} and "
                f"{shapes[1]}; fix the init that produced it."
            )
        if len(self.positions) == 0:
            raise TraceBenchError("A point cloud needs at least one point; fix the init that produced it.")
        if not bool(torch.isfinite(self.positions).all() and torch.isfinite(self.colors).all()):
            raise TraceBenchError(
                "A point cloud has NaN or infinite values; fix the init or the file it was read from."
            )
        if self.splats and (problem := splat_problem(self.splats)):
            raise TraceBenchError(f"The init's 3D Gaussians cannot be used: {problem}; fix the init.")

    def __len__(self) -> int:
        return len(self.positions)

    def to(self, device: torch.device | str) -> PointCloud:
        splats = self.splats and {name: value.to(device) for name, value in self.splats.items()}
        return replace(
            self, positions=self.positions.to(device), colors=self.colors.to(device), splats=splats
        )

    def subset(self, max_points: int | None, rng: StepRng) -> PointCloud:
        """At most `max_points` points, chosen at random; None keeps all."""
        if max_points is None or len(self) <= max_points:
            return self
        chosen = torch.randperm(len(self), generator=rng.generator("init_subset"))[:max_points]
        splats = self.splats and {name: value[chosen] for name, value in self.splats.items()}
        return replace(self, positions=self.positions[chosen], colors=self.colors[chosen], splats=splats)
