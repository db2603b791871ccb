"""Hollow init: points spread evenly over a sphere, colours near grey."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trace_bench.inits.random import check_cloud, near_grey
from trace_bench.representations.points import PointCloud

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng


@dataclass(frozen=True)
class Sphere:
    """`n` points of a Fibonacci lattice on the sphere of `radius` around the origin."""

    n: int = 2500
    radius: float = 0.5
    color_spread: float = 0.1

    def __post_init__(self) -> None:
        check_cloud("sphere", self.n, self.radius, self.color_spread)

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = "") -> PointCloud:
        index = torch.arange(self.n, dtype=torch.float64)
        z = 1.0 - (2.0 * index + 1.0) / self.n
        turn = index * math.pi * (3.0 - math.sqrt(5.0))
        ring = torch.sqrt(1.0 - z * z)
        points = torch.stack([ring * torch.cos(turn), ring * torch.sin(turn), z], dim=-1)
        colors = near_grey(self.n, self.color_spread, rng)
        return PointCloud((self.radius * points).float(), colors).to(device)
