"""Cameras in threestudio's conventions, and the distributions they are sampled from.

World: z up, azimuth 0 = +x = the front, azimuth grows towards +y. ``c2w`` is the OpenGL camera-to-world
matrix (columns right, up, backward, position; the camera looks along its own -z), as in threestudio's camera
conditioning. ``viewmats`` is the OpenCV world-to-camera matrix (x right, y down, z forward) for gsplat.
Angles are in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from trace_bench.system.errors import TraceBenchError


class UniformSource(Protocol):
    """The part of ``seeding.StepRng`` needed here: named uniform draws in [0, 1)."""

    def uniform(self, purpose: str, shape: tuple[int, ...]) -> Tensor: ...


@dataclass(frozen=True)
class Cameras:
    """A batch of B pinhole cameras that look at the origin."""

    c2w: Tensor  # [B, 4, 4] OpenGL camera-to-world
    viewmats: Tensor  # [B, 4, 4] OpenCV world-to-camera
    Ks: Tensor  # [B, 3, 3] intrinsics in pixels
    width: int
    height: int
    elevation_deg: Tensor  # [B]
    azimuth_deg: Tensor  # [B] in [-180, 180)
    distance: Tensor  # [B]
    fovy_deg: Tensor  # [B] vertical field of view

    _TENSORS = ("c2w", "viewmats", "Ks", "elevation_deg", "azimuth_deg", "distance", "fovy_deg")

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: slice) -> Cameras:
        return replace(self, **{name: getattr(self, name)[index] for name in self._TENSORS})

    def to(self, device: torch.device | str) -> Cameras:
        return self.replaced([x.to(device) for x in self.tensors()])

    def tensors(self) -> list[Tensor]:
        """All tensors, in a fixed order."""
        return [getattr(self, name) for name in self._TENSORS]

    def replaced(self, tensors: Sequence[Tensor]) -> Cameras:
        """These cameras with other `tensors`."""
        values: dict[str, Any] = dict(zip(self._TENSORS, tensors, strict=True))
        return replace(self, **values)


def wrap_degrees(azimuth_deg: Tensor) -> Tensor:
    """The same angle in [-180, 180)."""
    return (azimuth_deg + 180.0) % 360.0 - 180.0


def make_cameras(
    elevation_deg: Tensor | float, azimuth_deg: Tensor | float, distance: Tensor | float,
    fovy_deg: Tensor | float, width: int, height: int,
) -> Cameras:  # fmt: skip
    """Cameras at spherical positions around the origin; all inputs [B] or scalars, broadcast together."""
    values = [
        torch.as_tensor(v, dtype=torch.float64).reshape(-1)
        for v in (elevation_deg, azimuth_deg, distance, fovy_deg)
    ]
    elevation, azimuth, radius, fovy = torch.broadcast_tensors(*values)
    azimuth = wrap_degrees(azimuth)
    el, az = torch.deg2rad(elevation), torch.deg2rad(azimuth)
    backward = torch.stack([el.cos() * az.cos(), el.cos() * az.sin(), el.sin()], dim=-1)
    # Computed from the azimuth only, so that it is also defined for a camera at the pole.
    right = torch.stack([-az.sin(), az.cos(), torch.zeros_like(az)], dim=-1)
    up = torch.cross(backward, right, dim=-1)
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(az), 1, 1)
    c2w[:, :3] = torch.stack([right, up, backward, backward * radius[:, None]], dim=-1)
    opencv = c2w * torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    focal = 0.5 * height / torch.tan(0.5 * torch.deg2rad(fovy))
    intrinsics = torch.zeros(len(az), 3, 3, dtype=torch.float64)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = 0.5 * width, 0.5 * height, 1.0
    return Cameras(
        c2w.float(), torch.linalg.inv(opencv).float(), intrinsics.float(), width, height,
        elevation.float(), azimuth.float(), radius.float(), fovy.float(),
    )  # fmt: skip


#: Distribution of the elevation: with equal probability uniform in degrees, or uniform in area on the sphere.
#: per_view: drawn for each view (the toy world).
#: threestudio: drawn once per batch, as in the current code of threestudio.
#: released: drawn once per batch, with threestudio's old formula in place of the area, which GaussianDreamer,
#:     TraCe, CSD and Consistent3D still use: asin(2 u - 1) with u uniform between (low + 90) / 180 and
#:     (high + 90) / 180. For -10 to 60 degrees, it gives -6.4 to 41.8.
DISTRIBUTIONS = ("per_view", "threestudio", "released")


@dataclass(frozen=True)
class CameraRange:
    """Range of training cameras. The defaults suit the toy world.

    distance, fovy_deg, elevation_deg: (low, high).
    distribution: of the elevation, one of DISTRIBUTIONS.
    azimuth_strata: view i has its azimuth in stratum i % n of n, one of which is centred on the front;
        None: as many strata as views, starting at the back.
    """

    distance: tuple[float, float] = (2.5, 2.8)
    fovy_deg: tuple[float, float] = (40.0, 45.0)
    elevation_deg: tuple[float, float] = (-10.0, 60.0)
    distribution: str = "per_view"
    azimuth_strata: int | None = None

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            known = ", ".join(DISTRIBUTIONS)
            raise TraceBenchError(f"cameras.distribution={self.distribution!r} is not one of {known}.")
        if self.azimuth_strata is not None and self.azimuth_strata < 1:
            raise TraceBenchError(
                f"cameras.azimuth_strata must be at least 1 or null, but is {self.azimuth_strata}."
            )
        limits = {"distance": (0.0, math.inf), "fovy_deg": (0.0, 180.0), "elevation_deg": (-90.0, 90.0)}
        for name, (least, most) in limits.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise TraceBenchError(
                    f"The camera range {name}=({low}, {high}) must be (low, high) "
                    f"with {least} <= low <= high <= {most}."
                )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> CameraRange:
        """From the `cameras` of a config, whose ranges are lists."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
        return cls(**values)


def sample_cameras(
    n: int,
    rng: UniformSource,
    range: CameraRange,
    width: int,
    height: int,
) -> Cameras:
    """Sample n cameras like threestudio and the codes built on it.

    The azimuth is stratified over the batch. The elevation follows `range.distribution`. Distance and field
    of view are uniform.
    """

    def between(purpose: str, limits: tuple[float, float]) -> Tensor:
        return limits[0] + (limits[1] - limits[0]) * rng.uniform(purpose, (n,)).double().cpu()

    strata, first = n, -180.0
    if range.azimuth_strata is not None:
        strata, first = range.azimuth_strata, -180.0 + 180.0 / range.azimuth_strata
    stratum = torch.arange(n) % strata
    azimuth = (rng.uniform("camera_azimuth", (n,)).double().cpu() + stratum) / strata * 360.0 + first
    low, high = range.elevation_deg
    in_angle = between("camera_elevation", (low, high))
    band = (math.sin(math.radians(low)), math.sin(math.radians(high)))
    if range.distribution == "released":
        band = (low / 90.0, high / 90.0)  # 2 (elevation + 90) / 180 - 1
    on_sphere = torch.rad2deg(torch.asin(between("camera_elevation_band", band).clamp(-1.0, 1.0)))
    coins = n if range.distribution == "per_view" else 1
    choose_angle = rng.uniform("camera_elevation_kind", (coins,)).cpu() < 0.5
    elevation = torch.where(choose_angle, in_angle, on_sphere)
    distance, fovy = between("camera_distance", range.distance), between("camera_fovy", range.fovy_deg)
    return make_cameras(elevation, azimuth, distance, fovy, width, height)


@dataclass(frozen=True)
class EvaluationRig:
    """A fixed ring of cameras: evenly spaced azimuths from 0 (the front), everything else constant."""

    n_views: int = 24
    elevation_deg: float = 15.0
    distance: float = 2.65
    fovy_deg: float = 42.5
    resolution: int = 64

    def cameras(self) -> Cameras:
        azimuth = torch.arange(self.n_views, dtype=torch.float64) * (360.0 / self.n_views)
        full = torch.full_like(azimuth, 1.0)
        return make_cameras(
            self.elevation_deg * full, azimuth, self.distance * full, self.fovy_deg * full,
            self.resolution, self.resolution,
        )  # fmt: skip
