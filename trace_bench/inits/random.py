"""Uninformed init: points uniform in a ball, colours near grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trace_bench.representations.points import PointCloud
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng


@dataclass(frozen=True)
class RandomBall:
    """`n` points uniform in a ball of `radius` around the origin; colour channels in 0.5 +- color_spread."""

    n: int = 2500
    radius: float = 0.8
    color_spread: float = 0.1

    def __post_init__(self) -> None:
        check_cloud("random", self.n, self.radius, self.color_spread)

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = "") -> PointCloud:
        generator = rng.generator("init_positions")
        direction = torch.nn.functional.normalize(torch.randn(self.n, 3, generator=generator), dim=-1)
        distance = self.radius * torch.rand(self.n, 1, generator=generator) ** (1 / 3)
        return PointCloud(direction * distance, near_grey(self.n, self.color_spread, rng)).to(device)


def near_grey(n: int, spread: float, rng: StepRng) -> torch.Tensor:
    """n colours [n, 3], each channel uniform in 0.5 +- spread."""
    return 0.5 + spread * (2.0 * torch.rand(n, 3, generator=rng.generator("init_colors")) - 1.0)


def check_cloud(name: str, n: int, radius: float, color_spread: float) -> None:
    if n < 1 or radius <= 0.0 or not 0.0 <= color_spread <= 0.5:
        raise TraceBenchError(
            f"init={name} needs n >= 1, radius > 0 and color_spread in [0, 0.5], but got n={n}, "
            f"radius={radius}, color_spread={color_spread}."
        )
