"""Diffuse shading under a random point light during training (Poole et al., DreamFusion, 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError

TEXTURELESS = ("light", "normals")
LIGHT_DISTANCE = (0.8, 1.5)
LIGHT_SPREAD = 1.0  # std of the light's offset from the camera


@dataclass(frozen=True)
class ShadingSettings:
    """When to shade a step; one draw for the whole batch, as in threestudio."""

    diffuse: float = 0.0  # probability of a shaded step; 0 also skips computing normals for it
    textureless: float = 0.0  # probability that a shaded step shows only the shape
    ambient_until: float = 0.0  # share of the run without shading
    textureless_shows: str = "light"  # the light on white albedo, or the `normals` as colours (n + 1) / 2
    ambient_light: float = 0.1  # brightness everywhere ...
    diffuse_light: float = (
        0.9  # ... and what the light adds where it falls straight on the surface; threestudio
    )

    def __post_init__(self) -> None:
        if self.textureless_shows not in TEXTURELESS:
            raise TraceBenchError(
                f"representation.shading.textureless_shows={self.textureless_shows!r} is not one of "
                f"{', '.join(TEXTURELESS)}."
            )
        for name, value in vars(self).items():
            if name != "textureless_shows" and not 0.0 <= value <= 1.0:
                raise TraceBenchError(f"representation.shading.{name} must be in [0, 1], but is {value}.")

    def at(self, fraction: float, rng: StepRng) -> str:
        """One of albedo, diffuse, textureless for a step at this fraction of the run."""
        if fraction < self.ambient_until or not rng.chance("nerf_diffuse", self.diffuse):
            return "albedo"
        return "textureless" if rng.chance("nerf_textureless", self.textureless) else "diffuse"


def light_positions(cameras_at: Tensor, rng: StepRng) -> Tensor:
    """One light per view, near the camera's direction (DreamFusion): [B, 3] for camera positions [B, 3]."""
    device, shape = cameras_at.device, tuple(cameras_at.shape)
    about = cameras_at + LIGHT_SPREAD * rng.randn("nerf_light_direction", shape, device)
    low, high = LIGHT_DISTANCE
    distance = low + (high - low) * rng.uniform("nerf_light_distance", (shape[0], 1), device)
    return torch.nn.functional.normalize(about, dim=-1) * distance


def shade(
    albedo: Tensor,
    normals: Tensor,
    positions: Tensor,
    lights: Tensor,
    kind: str,
    settings: ShadingSettings = ShadingSettings(),
) -> Tensor:
    """Lambertian colour of the samples: all [M, 3], `lights` is the light position of each sample."""
    if kind == "textureless" and settings.textureless_shows == "normals":
        return 0.5 * (normals + 1.0)
    towards = torch.nn.functional.normalize(lights - positions, dim=-1)
    cosine = (normals * towards).sum(dim=-1, keepdim=True).clamp(min=0.0)
    light = (settings.ambient_light + settings.diffuse_light * cosine).expand(-1, 3)
    return light if kind == "textureless" else albedo * light
