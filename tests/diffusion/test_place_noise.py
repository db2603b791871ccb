"""Noise of the sky and of the surface: known numbers, and what must hold of it."""

from __future__ import annotations

import math

import pytest
import torch

from trace_bench.cameras import Cameras, make_cameras
from trace_bench.diffusion.place_noise import (
    SurfaceMaps,
    background,
    crop_starts,
    sky_noise,
    square_map,
    surface_corners,
    surface_noise,
    texel_noise,
)

SHAPE = (4, 16, 16)
MAPS = SurfaceMaps(size=64)


def cameras(*angles: tuple[float, float], side: int = 64) -> Cameras:
    """At (azimuth, elevation) in degrees, 2.5 from the origin."""
    azimuth, elevation = torch.tensor(angles, dtype=torch.float64).T
    full = torch.ones(len(angles), dtype=torch.float64)
    return make_cameras(elevation, azimuth, 2.5 * full, 40.0 * full, side, side)


def ball(view: Cameras, radius: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and opacity of a ball around the origin: [B, H, W, 1] each."""
    ys, xs = torch.meshgrid(*(torch.arange(view.height, dtype=torch.float64) + 0.5,) * 2, indexing="ij")
    focal = view.Ks[0, 0, 0].double()
    ray = torch.stack(
        [(xs - view.width / 2) / focal, (ys - view.height / 2) / focal, torch.ones_like(xs)], -1
    )
    a, b, c = ray.square().sum(-1), -2 * 2.5 * ray[..., 2], 2.5**2 - radius**2
    inside = b**2 - 4 * a * c
    depth = torch.where(inside > 0, (-b - inside.clamp(min=0).sqrt()) / (2 * a), 0.0)
    depth = depth[None, :, :, None].expand(len(view), -1, -1, -1)
    return depth, (depth > 0).double()


def test_texels_are_normal_and_depend_on_seed_name_and_number_alone() -> None:
    texel = torch.arange(200_000)
    noise = texel_noise(0, "surface", texel, 2)
    assert noise.dtype == torch.float64
    assert noise.mean().abs() < 0.01
    assert noise.var().item() == pytest.approx(1.0, abs=0.01)
    assert noise.pow(4).mean().item() == pytest.approx(3.0, abs=0.06)
    neighbours = [noise[1:, 0] * noise[:-1, 0], noise[:, 0] * noise[:, 1]]
    others = (texel_noise(1, "surface", texel, 2), texel_noise(0, "sky", texel, 2))
    neighbours += [(noise * other)[:, 0] for other in others]
    assert all(product.mean().abs() < 0.01 for product in neighbours)
    assert torch.equal(texel_noise(0, "surface", texel[[5, 77]], 2), noise[[5, 77]])


def test_the_numbers_stay_the_same() -> None:
    """A resumed run of another release must find the same noise."""
    found = texel_noise(0, "surface", torch.tensor([0, 123_456]), 1)[:, 0].tolist()
    assert found == pytest.approx([-0.940690233826491, -0.6088092132539584], rel=1e-12)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "row", "column"),
    [(0, 0, 0, 0), (45, 0, 0, 16), (90, 10, 60, 32), (-90, 30, 53, 96)],
)
def test_crops_of_the_sky(azimuth: float, elevation: float, row: int, column: int) -> None:
    starts = crop_starts(torch.tensor([float(elevation)]), torch.tensor([float(azimuth)]), 64, 64)
    assert [int(start) for start in starts] == [row, column]


def test_the_sky_is_shifted_between_views_and_is_behind_the_object_only() -> None:
    view = cameras((0.0, 0.0), (45.0, 0.0), (0.0, 0.0))
    full = torch.ones(3, 64, 64, 1)
    noise = sky_noise(3, view, full, SHAPE)
    assert torch.equal(noise[0], noise[2])
    assert torch.equal(noise[0, :, :, 4:], noise[1, :, :, :12])  # 45 degrees are 4 of 32 columns
    assert torch.equal(sky_noise(3, view, 0 * full, SHAPE), background(3, SHAPE).expand(3, *SHAPE))
    half = full.clone()
    half[:, :, :32] = 0.4
    assert torch.equal(sky_noise(3, view, half, SHAPE)[:, :, :, 8:], noise[:, :, :, 8:])
    assert torch.equal(sky_noise(3, view, half, SHAPE)[0, :, :, :8], background(3, SHAPE)[:, :, :8])
    above = sky_noise(3, cameras((0.0, 12.0)), full[:1], SHAPE)  # 11.25 degrees are a row
    assert torch.equal(above[0, :, 2:], noise[0, :, :14])


@pytest.mark.parametrize(
    ("point", "place"),
    [
        ((0, 0, 1), (0, 0)),
        ((1, 0, 0), (1, 1)),
        ((0, 1, 0), (1, -1)),
        ((1, 1, 1), (0.6501151673437363, 0)),
        ((-1, 2, 0.5), (0.36221988341469513, -0.884184431984644)),
    ],
)
def test_square_map(point: tuple[float, ...], place: tuple[float, ...]) -> None:
    found = square_map(torch.tensor(point, dtype=torch.float64))
    assert found.tolist() == pytest.approx(place, abs=1e-14)


def test_square_map_keeps_areas() -> None:
    points = torch.randn(60_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = ((square_map(points) + 1) * 3).long().clamp(0, 5)
    counts = (cells[:, 0] * 6 + cells[:, 1]).bincount(minlength=36)
    assert counts.sum() == 60_000
    assert (counts.min() > 1667 * 0.9, counts.max() < 1667 * 1.1) == (True, True)


def test_a_latent_pixel_sums_its_texels() -> None:
    """Texels 1, -2 and 0.5 give their sum over the root of three."""
    assert sum((1, -2, 0.5)) / math.sqrt(3) == pytest.approx(-0.2886751345948129, rel=1e-14)
    view = cameras((20.0, 10.0))
    depth, alpha = ball(view)
    corners, is_surface = surface_corners(view, depth, alpha, 16, 16)
    noise = MAPS.noise(0, corners, is_surface, background(0, SHAPE))[0]
    share = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    seen: set[int] = set()
    for i, j in ((6, 7), (6, 8), (7, 7), (7, 8)):  # in the order in which texels are given away
        top, low = (
            (1 - share)[:, None] * corners[0, row, j] + share[:, None] * corners[0, row, j + 1]
            for row in (i, i + 1)
        )
        points = (1 - share)[:, None, None] * top + share[:, None, None] * low
        texels = set(MAPS.texels(points).flatten().tolist())
        before = neighbours_of(corners, i, j, share)
        own = torch.tensor(sorted(texels - before))
        expected = texel_noise(0, "surface", own, 4).sum(0) / math.sqrt(len(own))
        assert torch.allclose(noise[:, i, j], expected, atol=1e-12)
        seen |= texels
    assert len(seen) > 20


def neighbours_of(corners: torch.Tensor, i: int, j: int, share: torch.Tensor) -> set[int]:
    """Texels of the latent pixels before (i, j)."""
    found: set[int] = set()
    for row in range(16):
        for column in range(16):
            if (row, column) >= (i, j):
                continue
            top, low = (
                (1 - share)[:, None] * corners[0, at, column] + share[:, None] * corners[0, at, column + 1]
                for at in (row, row + 1)
            )
            points = (1 - share)[:, None, None] * top + share[:, None, None] * low
            found |= set(MAPS.texels(points).flatten().tolist())
    return found


def test_corners_lie_on_the_surface() -> None:
    view = cameras((30.0, 20.0), (-120.0, -10.0))
    corners, is_surface = surface_corners(view, *ball(view), 16, 16)
    centre = corners[:, 6:11, 6:11]
    assert is_surface[:, 6:11, 6:11].all()
    assert torch.allclose(centre.norm(dim=-1), torch.full((2, 5, 5), 0.7, dtype=torch.float64), atol=0.01)
    towards = view.c2w[:, :3, 3].double() / 2.5
    assert torch.allclose(corners[:, 8, 8], 0.7 * towards, atol=0.01)
    assert not is_surface[:, 0].any()
    right, up = (corners[0, 8, 10] - corners[0, 8, 6]), (corners[0, 6, 8] - corners[0, 10, 8])
    assert (right @ view.c2w[0, :3, 0].double() > 0.1, up @ view.c2w[0, :3, 1].double() > 0.1) == (True, True)


def test_surface_noise_is_normal_in_each_view_and_correlated_between_neighbours() -> None:
    view = cameras((0.0, 10.0), (0.0, 10.0), (3.0, 10.0), (120.0, 10.0))
    depth, alpha = ball(view)
    many = torch.cat([surface_noise(seed, view, depth, alpha, SHAPE, MAPS)[:, None] for seed in range(60)], 1)
    assert torch.equal(many[0], many[1])
    inside = many[:, :, :, 5:11, 5:11]
    assert inside.mean().abs() < 0.03
    assert inside.var().item() == pytest.approx(1.0, abs=0.03)
    along = (inside[..., 1:] * inside[..., :-1]).mean()
    assert along.abs() < 0.03  # independent within a view
    near, far = ((inside[0] * inside[i]).mean().item() for i in (2, 3))
    assert near > 0.3
    assert abs(far) < 0.05
    behind = torch.stack([background(seed, SHAPE) for seed in range(60)])
    assert torch.equal(many[0, :, :, 0], behind[:, :, 0])


def test_an_empty_picture_has_the_background() -> None:
    view = cameras((0.0, 0.0))
    depth, alpha = ball(view)
    expected = background(0, SHAPE)[None]
    for nothing in ((depth, 0 * alpha), (0 * depth, alpha), (0 * depth, 1 + 0 * alpha)):
        assert torch.equal(surface_noise(0, view, *nothing, SHAPE, MAPS), expected)
    outside = make_cameras(0.0, 0.0, 9.0, 40.0, 64, 64)  # a wall at 7.5 from the origin
    assert torch.equal(surface_noise(0, outside, 1 + depth * 0, 1 + alpha * 0, SHAPE, MAPS), expected)
