"""Noise that belongs to a place: in the sky (Yan et al. 2024, FSD) or on the surface (Yan et al. 2025, CFD).

A map is a grid of texels with independent N(0, 1). A texel's value is a function of the seed, the map's name
and the texel's number, so no map is stored, and a resumed run finds the same noise. All of it is computed on
the CPU in double precision, so that it is equal on every device.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trace_bench.cameras import Cameras

BOX = 1.0  # the surface is looked for in [-1, 1]^3, as in the released code
LEAST_ALPHA = 0.1  # opacity at a corner of a latent pixel from which there is a surface, as released
SKY_ALPHA = 0.5  # mean opacity of a latent pixel from which the sky's map is used, as released


def _signed(value: int) -> int:
    """64 bits as torch's int64."""
    return value - (1 << 64) if value >> 63 else value


_GOLDEN, _M1, _M2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _right(bits: Tensor, n: int) -> Tensor:
    """Shift to the right with zeros from the left; torch's own repeats the sign."""
    return (bits >> n) & ((1 << (64 - n)) - 1)


def _bits(start: int, counter: Tensor) -> Tensor:
    """SplitMix64 (Steele et al. 2014) as a function of a counter: 64 random bits, int64."""
    z = counter * _GOLDEN + start
    z = (z ^ _right(z, 30)) * _M1
    z = (z ^ _right(z, 27)) * _M2
    return z ^ _right(z, 31)


def texel_noise(seed: int, name: str, texel: Tensor, channels: int) -> Tensor:
    """N(0, 1) of the texels (int64 [...]) of map `name`: float64 [..., channels]."""
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    number = texel[..., None] * channels + torch.arange(channels)
    first, second = (
        (_right(_bits(int.from_bytes(key, "little", signed=True), 2 * number + i), 11).double() + 0.5)
        * 2.0**-53
        for i in range(2)
    )
    return (-2.0 * first.log()).sqrt() * (2.0 * math.pi * second).cos()


def background(seed: int, shape: tuple[int, int, int]) -> Tensor:
    """The map behind everything, one texel for each latent pixel: float64 [C, h, w]."""
    channels, h, w = shape
    return texel_noise(seed, "background", torch.arange(h * w).view(h, w), channels).permute(2, 0, 1)


def crop_starts(elevation_deg: Tensor, azimuth_deg: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Row and column at which each view's crop of the sky begins, int64 [B]. The sky has h rows for 180
    degrees and 2 w columns for 360."""
    row = (-elevation_deg.double() * h / 180.0) % h
    column = (azimuth_deg.double() * 2 * w / 360.0) % (2 * w)
    return row.floor().long() % h, column.floor().long() % (2 * w)


def sky_noise(seed: int, view: Cameras, alpha: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Crops of a map of the sky, periodic in both directions, where the object is; elsewhere the background.

    alpha: opacity [B, H, W, 1]. Returns float64 [B, C, h, w]. The released map is not periodic in its rows,
    so that a crop jumps at elevation 0.
    """
    channels, h, w = shape
    row, column = crop_starts(view.elevation_deg.cpu(), view.azimuth_deg.cpu(), h, w)
    rows = (row[:, None] + torch.arange(h)) % h
    columns = (column[:, None] + torch.arange(w)) % (2 * w)
    texel = rows[:, :, None] * (2 * w) + columns[:, None, :]
    sky = texel_noise(seed, "sky", texel, channels).permute(0, 3, 1, 2)
    seen = F.adaptive_avg_pool2d(alpha.cpu().double().permute(0, 3, 1, 2), (h, w)) >= SKY_ALPHA
    return torch.where(seen, sky, background(seed, shape))


def square_map(points: Tensor) -> Tensor:
    """Directions of points [..., 3] on the square [-1, 1]^2, in equal areas, the two hemispheres of z on top
    of each other: [..., 2]."""
    x, y, z = points.unbind(-1)
    theta = torch.atan2(torch.hypot(x, y), z.abs())
    phi = torch.atan2(x, y)
    d = (1.0 - theta.cos()).clamp(min=0.0).sqrt()
    q = math.pi / 2.0

    def along(start: float) -> Tensor:
        """-d to d while phi goes through the quarter that begins at `start`."""
        return d * (2.0 * (phi - start) / q - 1.0)

    first = torch.where(phi > q, -along(q), torch.where(phi > 0, d, torch.where(phi > -q, along(-q), -d)))
    second = torch.where(
        phi > q, d, torch.where(phi > 0, along(0.0), torch.where(phi > -q, -d, -along(-2 * q)))
    )
    return torch.stack([first, second], dim=-1)


@dataclass(frozen=True)
class SurfaceMaps:
    """Maps of both hemispheres of directions, in layers of the distance from the origin.

    size: texels along a side of a map.
    layers: number of layers between the origin and the corner of the box.
    samples: points along a side of a latent pixel at which the texels that it covers are looked up.
    """

    size: int = 256
    layers: int = 4
    samples: int = 8

    def texels(self, points: Tensor) -> Tensor:
        """The number of the texel at points [..., 3]: int64 [...]."""
        place = ((square_map(points) + 1.0) / 2.0 * self.size).long().clamp(0, self.size - 1)
        share = points.norm(dim=-1) / (BOX * math.sqrt(3.0))
        layer = (share * self.layers).long().clamp(max=self.layers - 1)
        sheet = (points[..., 2] < 0).long() * self.layers + layer
        return (sheet * self.size + place[..., 0]) * self.size + place[..., 1]

    def noise(self, seed: int, corners: Tensor, is_surface: Tensor, behind: Tensor) -> Tensor:
        """The sum of the texels that each latent pixel covers, divided by the root of their number; `behind`
        where it covers none.

        corners: of the latent pixels, on the surface, [B, h + 1, w + 1, 3]; is_surface: [B, h + 1, w + 1].
        behind: [C, h, w]. Returns float64 [B, C, h, w]. In one view a texel belongs to one latent pixel, the
        first, so that the noise of a view is exactly N(0, I).
        """
        between = (torch.arange(self.samples, dtype=torch.float64) + 0.5) / self.samples
        rows, columns = between.view(-1, 1, 1), between.view(1, -1, 1)
        top_left, top_right, low_left, low_right = (
            each[:, :, :, None, None].double() for each in _quads(corners)
        )
        top = (1.0 - columns) * top_left + columns * top_right
        low = (1.0 - columns) * low_left + columns * low_right
        points = (1.0 - rows) * top + rows * low  # [B, h, w, k, k, 3]
        on_all = torch.stack(_quads(is_surface)).all(0)[..., None, None]
        covered = on_all & (points.abs() <= BOX).all(-1)
        texels = self.texels(points)
        views = [self._view(seed, texels[b], covered[b], behind) for b in range(len(corners))]
        return torch.stack(views)

    def _view(self, seed: int, texels: Tensor, covered: Tensor, behind: Tensor) -> Tensor:
        """One view: texels and covered [h, w, k, k] to noise [C, h, w]."""
        channels, h, w = behind.shape
        pixel = torch.arange(h * w).view(h, w, 1, 1).expand_as(texels)[covered]
        found, which = texels[covered].unique(return_inverse=True)
        owner = torch.full_like(found, h * w).scatter_reduce(0, which, pixel, "amin")
        total = torch.zeros(h * w, channels, dtype=torch.float64)
        total.index_add_(0, owner, texel_noise(seed, "surface", found, channels))
        count = owner.bincount(minlength=h * w).view(-1, 1)
        noise = torch.where(count > 0, total / count.clamp(min=1).sqrt(), behind.reshape(channels, -1).T)
        return noise.T.reshape(channels, h, w)


def _quads(grid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four corners of each cell of a grid [B, h + 1, w + 1, ...]: each [B, h, w, ...]."""
    return grid[:, :-1, :-1], grid[:, :-1, 1:], grid[:, 1:, :-1], grid[:, 1:, 1:]


def surface_corners(view: Cameras, depth: Tensor, alpha: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """The corners of the latent pixels on the surface, in world space [B, h + 1, w + 1, 3], and whether there
    is one, bool [B, h + 1, w + 1].

    depth, alpha: [B, H, W, 1], as in a render; depth is the mean over the latent pixels around a corner,
    weighted by the opacity.
    """
    alpha, depth = (each.cpu().double().permute(0, 3, 1, 2) for each in (alpha, depth))
    alpha = alpha * (depth > 0)

    def around(values: Tensor) -> Tensor:
        cells = F.adaptive_avg_pool2d(values, (h, w))
        return F.avg_pool2d(F.pad(cells, (1, 1, 1, 1), mode="replicate"), 2, stride=1)[:, 0]

    weight = around(alpha)
    z = around(alpha * depth) / weight.clamp(min=1e-12)
    intrinsics, c2w = view.Ks.cpu().double(), view.c2w.cpu().double()
    x = torch.arange(w + 1, dtype=torch.float64) * view.width / w
    y = torch.arange(h + 1, dtype=torch.float64) * view.height / h
    focal_x, focal_y, centre_x, centre_y = (
        intrinsics[:, i, j].view(-1, 1, 1) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))
    )
    right = (x.view(1, 1, -1) - centre_x) / focal_x * z
    up = -(y.view(1, -1, 1) - centre_y) / focal_y * z
    in_camera = torch.stack([right, up, -z], dim=-1)
    world = torch.einsum("bij,bhwj->bhwi", c2w[:, :3, :3], in_camera) + c2w[:, None, None, :3, 3]
    return world, weight > LEAST_ALPHA


def surface_noise(
    seed: int, view: Cameras, depth: Tensor, alpha: Tensor, shape: tuple[int, int, int], maps: SurfaceMaps
) -> Tensor:
    """The noise of the surface that each view sees (depth, alpha [B, H, W, 1]), and the background where it
    sees none: float64 [B, C, h, w]."""
    corners, is_surface = surface_corners(view, depth, alpha, *shape[1:])
    return maps.noise(seed, corners, is_surface, background(seed, shape))
