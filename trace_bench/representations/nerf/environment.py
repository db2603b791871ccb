"""A learned background: colour by viewing direction (threestudio's neural environment map)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trace_bench.seeding import StepRng

HIDDEN = 16


def spherical_harmonics(directions: Tensor) -> Tensor:
    """The nine real spherical harmonics of degrees 0 to 2 for unit directions [N, 3]: [N, 9]."""
    x, y, z = directions.unbind(-1)
    values = [
        torch.full_like(x, 0.28209479177387814),
        *(0.4886025119029199 * value for value in (-y, z, -x)),
        *(1.0925484305920792 * value for value in (x * y, -y * z, -x * z)),
        0.31539156525252005 * (3.0 * z * z - 1.0),
        0.5462742152960396 * (x * x - y * y),
    ]
    return torch.stack(values, dim=-1)


class Environment:
    """Directions [N, 3] -> colours [N, 3]: spherical harmonics and two hidden layers of 16."""

    NETWORKS = ("background_in", "background_mid", "background_out")

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        self.params = params

    @staticmethod
    def initial(rng: StepRng) -> dict[str, Tensor]:
        """Initial parameters: each layer uniform in +-1 / sqrt(inputs)."""
        generator = rng.generator("nerf_background")
        shapes = zip(Environment.NETWORKS, ((9, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 3)), strict=True)
        return {
            name: (2.0 * torch.rand(shape, generator=generator) - 1.0) / math.sqrt(shape[0])
            for name, shape in shapes
        }

    def __call__(self, directions: Tensor) -> Tensor:
        hidden = torch.relu(spherical_harmonics(directions) @ self.params["background_in"])
        hidden = torch.relu(hidden @ self.params["background_mid"])
        return torch.sigmoid(hidden @ self.params["background_out"])
