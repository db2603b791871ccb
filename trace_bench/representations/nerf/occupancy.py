"""Which cells of the cube are occupied (Müller et al. 2022, appendix E.2); rays skip the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError


@dataclass(frozen=True)
class OccupancySettings:
    """Defaults from nerfacc (Li et al. 2023), as used by threestudio."""

    resolution: int = 32  # cells a side
    every: int = 16  # steps between updates
    threshold: float = 0.01  # optical depth of one sample; the grid's mean is used if it is lower
    decay: float = 0.95  # factor on the running maximum at each update

    def __post_init__(self) -> None:
        if min(self.resolution, self.every) < 1 or self.threshold < 0 or not 0 <= self.decay <= 1:
            raise TraceBenchError(
                "representation.occupancy needs resolution and every of at least 1, threshold of at least 0 "
                f"and decay in [0, 1], but has {vars(self)}."
            )


class OccupancyGrid:
    """Running maximum of density times step in every cell of the cube of half side `radius`."""

    def __init__(self, settings: OccupancySettings, radius: float, device: torch.device | str) -> None:
        self.settings, self.radius = settings, radius
        n = settings.resolution
        self.values = torch.zeros(n**3, device=device)
        self.occupied = torch.ones(n**3, dtype=torch.bool, device=device)
        ticks = torch.arange(n, device=device)
        self._cells = torch.stack(torch.meshgrid(ticks, ticks, ticks, indexing="ij"), dim=-1).view(-1, 3)

    @torch.no_grad()
    def update(self, density: Callable[[Tensor], Tensor], step: float, rng: StepRng) -> None:
        """Sample a random point in every cell."""
        s = self.settings
        jitter = rng.uniform("nerf_occupancy", (1, *self._cells.shape), self.values.device)[0]
        points = ((self._cells + jitter) * (2.0 / s.resolution) - 1.0) * self.radius
        self.values = torch.maximum(s.decay * self.values, step * density(points))
        self.occupied = self.values > self.values.mean().clamp(max=s.threshold)

    def at(self, positions: Tensor) -> Tensor:
        """Whether the cells at positions [3, ...] in the cube are occupied: bool [...]."""
        n = self.settings.resolution
        x, y, z = ((positions + self.radius) * (n / (2.0 * self.radius))).long().clamp_(0, n - 1)
        return self.occupied[x.mul_(n).add_(y).mul_(n).add_(z)]

    def state_dict(self) -> dict[str, Tensor]:
        return {"values": self.values.clone(), "occupied": self.occupied.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, own in (("values", self.values), ("occupied", self.occupied)):
            if state[name].shape != own.shape or state[name].dtype != own.dtype:
                raise ValueError(f"occupancy.{name} is not {own.dtype} of shape {list(own.shape)}")
            setattr(self, name, state[name].to(own.device).clone())
