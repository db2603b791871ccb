"""Density and colour at a point: hash encoding, two small networks, and an initial blob."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trace_bench.representations.nerf.hash_grid import HashGrid
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError


@dataclass(frozen=True)
class FieldSettings:
    """`radius`: half the side of the cube that contains the field. The blob is Magic3D's (Lin et al. 2023):
    blob_scale (1 - |p| / blob_std) before the softplus; density_scale multiplies the softplus."""

    radius: float = 1.0
    hidden: int = 64
    blob_scale: float = 10.0
    blob_std: float = 0.5
    density_scale: float = 1.0

    def __post_init__(self) -> None:
        if min(self.radius, self.hidden, self.blob_std, self.density_scale) <= 0 or self.blob_scale < 0:
            raise TraceBenchError(
                "representation.field needs radius, hidden, blob_std and density_scale above 0 and "
                f"blob_scale of at least 0, but has {vars(self)}."
            )


class Field:
    """Positions [N, 3] in world units -> density [N] per world unit, colour [N, 3], normal [N, 3].

    Both networks have one hidden layer with ReLU and no biases. Colours do not depend on the view direction.
    """

    NETWORKS = ("density_in", "density_out", "color_in", "color_out")

    def __init__(self, settings: FieldSettings, grid: HashGrid, params: Mapping[str, Tensor]) -> None:
        self.settings, self.grid, self.params = settings, grid, params
        self.active = grid.levels  # levels in use

    @staticmethod
    def initial(settings: FieldSettings, grid: HashGrid, rng: StepRng) -> dict[str, Tensor]:
        """Initial parameters: the table uniform in +-1e-4 (Instant-NGP, section 4), layers uniform in
        +-1 / sqrt(inputs)."""
        generator = rng.generator("nerf_field")

        def uniform(limit: float, *shape: int) -> Tensor:
            return limit * (2.0 * torch.rand(shape, generator=generator) - 1.0)

        width, hidden = grid.width, settings.hidden
        shapes = {"density_in": (width, hidden), "density_out": (hidden, 1)}
        shapes |= {"color_in": (width, hidden), "color_out": (hidden, 3)}
        networks = {name: uniform(1.0 / math.sqrt(shape[0]), *shape) for name, shape in shapes.items()}
        return {"table": uniform(1e-4, grid.rows, 2), **networks}

    def density(self, positions: Tensor) -> Tensor:
        return self._density(self._encode(positions)[0], positions)

    def density_and_color(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        features = self._encode(positions)[0]
        return self._density(features, positions), self._color(features)

    def density_color_normal(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The normal is -grad(density), of unit length (0 where the gradient is zero)."""
        encoded = self._encode(positions, tangents=True)
        density, gradient = self._density_gradient(encoded, positions)
        normal = -torch.nn.functional.normalize(gradient, dim=-1, eps=1e-12)
        return density, self._color(encoded[0]), normal

    def density_and_gradient(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Density [N] and its derivatives in world units [N, 3], both differentiable in the parameters."""
        return self._density_gradient(self._encode(positions, tangents=True), positions)

    def _encode(self, positions: Tensor, tangents: bool = False) -> Tensor:
        radius = self.settings.radius
        unit = (positions.detach() + radius) / (2.0 * radius)
        return self.grid.encode(self.params["table"], unit, self.active, tangents)

    def _blob(self, positions: Tensor) -> Tensor:
        s = self.settings
        return s.blob_scale * (1.0 - positions.norm(dim=-1) / s.blob_std)

    def _density(self, features: Tensor, positions: Tensor) -> Tensor:
        hidden = torch.relu(features @ self.params["density_in"])
        raw = (hidden @ self.params["density_out"])[:, 0]
        return self.settings.density_scale * torch.nn.functional.softplus(raw + self._blob(positions))

    def _density_gradient(self, encoded: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The chain rule written out, from the output back to the encoding and its tangents."""
        s, w_in, w_out = self.settings, self.params["density_in"], self.params["density_out"]
        features, tangents = encoded[0], encoded[1:]
        hidden = features @ w_in
        before = (torch.relu(hidden) @ w_out)[:, 0] + self._blob(positions)
        by_feature = torch.where(hidden > 0.0, w_out[:, 0], 0.0) @ w_in.t()  # [N, width]
        by_position = (tangents * by_feature).sum(dim=-1).t() / (2.0 * s.radius)
        outwards = torch.nn.functional.normalize(positions, dim=-1)
        slope = by_position - s.blob_scale / s.blob_std * outwards
        density = s.density_scale * torch.nn.functional.softplus(before)
        return density, s.density_scale * torch.sigmoid(before)[:, None] * slope

    def _color(self, features: Tensor) -> Tensor:
        hidden = torch.relu(features @ self.params["color_in"])
        return torch.sigmoid(hidden @ self.params["color_out"])
