"""Camera rays through a cube, and their samples in occupied cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trace_bench.cameras import Cameras

LOOKED_AT = {"cpu": 1 << 17, "cuda": 1 << 23}  # positions per occupancy lookup


@dataclass(frozen=True)
class Rays:
    """R rays, ordered by view, then row by row."""

    origins: Tensor  # [R, 3]
    directions: Tensor  # [R, 3] unit
    cosines: Tensor  # [R] camera-frame z-depth per unit of length along the ray
    near: Tensor  # [R] where the ray enters the cube, 0 if it starts inside
    far: Tensor  # [R] where it leaves; at most near if it misses

    def __len__(self) -> int:
        return len(self.origins)


@dataclass(frozen=True)
class Samples:
    """M samples in the order of their rays, front to back."""

    ray: Tensor  # [M] int64
    counts: Tensor  # [R] samples on each ray
    t: Tensor  # [M] distance from the ray's origin
    positions: Tensor  # [M, 3]


def camera_rays(cameras: Cameras, radius: float) -> Rays:
    """A ray through every pixel centre, and the segment of it in the cube [-radius, radius]^3."""
    c2w, K = cameras.c2w, cameras.Ks
    u = torch.arange(cameras.width, device=c2w.device) + 0.5
    v = torch.arange(cameras.height, device=c2w.device) + 0.5
    x = (u[None, :] - K[:, 0, 2, None]) / K[:, 0, 0, None]  # [B, W]
    y = (K[:, 1, 2, None] - v[None, :]) / K[:, 1, 1, None]  # [B, H], up
    local = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None], c2w.new_full((), -1.0)), dim=-1)
    cosines = 1.0 / local.norm(dim=-1)
    world = torch.einsum("bij,bhwj->bhwi", c2w[:, :3, :3], local) * cosines[..., None]
    directions = world.reshape(-1, 3)
    origins = c2w[:, None, None, :3, 3].expand_as(world).reshape(-1, 3)
    slope = torch.where(directions.abs() < 1e-9, 1e-9, directions)
    sides = torch.stack([(-radius - origins) / slope, (radius - origins) / slope])
    near, far = sides.amin(dim=0).amax(dim=-1).clamp(min=0.0), sides.amax(dim=0).amin(dim=-1)
    return Rays(origins, directions, cosines.reshape(-1), near, far)


@torch.no_grad()
def march(
    rays: Rays, is_occupied: Callable[[Tensor], Tensor], step: float, n_steps: int, jitter: Tensor
) -> Samples:
    """Samples at near + (i + jitter) step, i < n_steps, that lie in the cube and in occupied cells.

    jitter: [R] in [0, 1). Only the number of samples is transferred from the device.
    """
    offsets = torch.arange(n_steps, device=jitter.device) * step
    first = rays.near + jitter * step
    chunk = max(1, LOOKED_AT.get(jitter.device.type, 1 << 20) // n_steps)
    masks = []
    for begin in range(0, len(rays), chunk):
        part = slice(begin, begin + chunk)
        t = first[part, None] + offsets
        positions = rays.origins[part].t()[..., None] + t * rays.directions[part].t()[..., None]
        masks.append((t < rays.far[part, None]) & is_occupied(positions))
    mask = torch.cat(masks)
    ray, index = mask.nonzero(as_tuple=True)  # the only synchronisation with the device in a render
    t = first[ray] + index * step
    return Samples(ray, mask.sum(dim=1), t, rays.origins[ray] + t[:, None] * rays.directions[ray])
