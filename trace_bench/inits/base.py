"""What a start is: a coloured point cloud in the world frame (z up, the object about the origin)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from trace_bench.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng


@dataclass(frozen=True)
class PointCloud:
    """Points to start a 3D representation from."""

    positions: Tensor  # [N, 3] float, world units
    colors: Tensor  # [N, 3] float in [0, 1], RGB

    def __post_init__(self) -> None:
        shapes = tuple(self.positions.shape), tuple(self.colors.shape)
        if self.positions.ndim != 2 or self.positions.shape[1] != 3 or shapes[0] != shapes[1]:
            raise TraceBenchError(
                f"A point cloud needs positions [N, 3] and as many colors [N, 3], but got {shapes[0]} and "
                f"{shapes[1]}; mend the init that made it."
            )
        if len(self.positions) == 0:
            raise TraceBenchError("A point cloud needs at least one point; mend the init that made it.")
        if not bool(torch.isfinite(self.positions).all() and torch.isfinite(self.colors).all()):
            raise TraceBenchError(
                "A point cloud has NaN or infinite values; mend the init or the file it was read from."
            )

    def __len__(self) -> int:
        return len(self.positions)

    def to(self, device: torch.device | str) -> PointCloud:
        return PointCloud(self.positions.to(device), self.colors.to(device))


class Init(Protocol):
    """A way to start, made from conf/init/*.yaml: called once a run, before the first step."""

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu") -> PointCloud: ...
