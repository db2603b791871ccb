"""Density, normal and colour of the field; the occupancy grid; the learned background."""

from __future__ import annotations

import math

import pytest
import torch

from trace_bench.representations.nerf.environment import Environment, spherical_harmonics
from trace_bench.representations.nerf.field import Field, FieldSettings
from trace_bench.representations.nerf.hash_grid import HashGrid
from trace_bench.representations.nerf.occupancy import OccupancyGrid, OccupancySettings
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError

GRID = HashGrid(levels=3, log2_size=9, base=4, growth=1.6)


def field(scale=1.0, dtype=torch.float64, **settings):
    """A field whose table is `scale` times a random one; 0 leaves the blob."""
    settings = FieldSettings(**{"radius": 1.2, "hidden": 16, **settings})
    params = {k: v.to(dtype) for k, v in Field.initial(settings, GRID, StepRng(0, -1)).items()}
    rng = torch.Generator().manual_seed(1)
    params["table"] = scale * torch.randn(params["table"].shape, generator=rng, dtype=dtype)
    return Field(settings, GRID, params)


def points(n=50, radius=1.0, seed=2):
    rng = torch.Generator().manual_seed(seed)
    return radius * (2.0 * torch.rand(n, 3, generator=rng, dtype=torch.float64) - 1.0)


def test_blob_is_magic3ds():
    p = points()
    expected = torch.log1p(torch.exp(10.0 * (1.0 - p.norm(dim=-1) / 0.5)))
    torch.testing.assert_close(field(0.0).density(p), expected)


def test_field_is_two_networks_on_the_encoding():
    """Compared with nn.Linear, ReLU and the encoding, which is tested separately."""
    f, p = field(), points()
    encoded = GRID.encode(f.params["table"], (p + 1.2) / 2.4, 3)[0]
    hidden = torch.relu(torch.nn.functional.linear(encoded, f.params["density_in"].t()))
    raw = torch.nn.functional.linear(hidden, f.params["density_out"].t())[:, 0]
    expected = torch.nn.functional.softplus(raw + 10.0 * (1.0 - 2.0 * p.norm(dim=-1)))
    density, color = f.density_and_color(p)
    torch.testing.assert_close(density, expected)
    hidden = torch.relu(torch.nn.functional.linear(encoded, f.params["color_in"].t()))
    torch.testing.assert_close(color, torch.sigmoid(hidden @ f.params["color_out"]))


def test_gradient_against_finite_differences():
    f, p, h = field(density_scale=3.0), points(), 1e-6
    density, gradient = f.density_and_gradient(p)
    torch.testing.assert_close(density, f.density(p))
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = h
        slope = (f.density(p + step) - f.density(p - step)) / (2 * h)
        torch.testing.assert_close(gradient[:, axis], slope, rtol=1e-5, atol=1e-6)


def test_a_loss_on_the_gradient_reaches_all_parameters():
    """First-order backward of the spatial gradient, against finite differences in the parameters."""
    f, p = field(), points(5)
    names = ("table", "density_in", "density_out")
    for name in names:
        f.params[name].requires_grad_()

    def loss(*values):
        f.params.update(zip(names, values, strict=True))
        return f.density_and_gradient(p)[1].square().sum()

    assert torch.autograd.gradcheck(loss, [f.params[name] for name in names], fast_mode=True)


def test_normals_of_the_blob_point_outwards():
    p = points()
    _, _, normals = field(0.0).density_color_normal(p)
    torch.testing.assert_close(normals, torch.nn.functional.normalize(p, dim=-1))


def test_normal_is_unit_and_colours_agree_on_both_paths():
    f, p = field(), points()
    density, colors, normals = f.density_color_normal(p)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(50, dtype=torch.float64))
    expected = f.density_and_color(p)
    torch.testing.assert_close((density, colors), expected)


def test_density_scale_is_a_factor():
    torch.testing.assert_close(field(density_scale=4.0).density(points()), 4.0 * field().density(points()))


def test_first_parameters_follow_the_seed():
    settings = FieldSettings()
    first, again, other = (Field.initial(settings, GRID, StepRng(seed, -1)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["table"], other["table"])
    assert first["table"].abs().max() <= 1e-4
    assert first["color_in"].abs().max() <= 1.0 / math.sqrt(GRID.width)


def test_occupancy_knows_the_cells_of_the_blob():
    grid = OccupancyGrid(OccupancySettings(resolution=16, threshold=0.01), 1.2, "cpu")
    grid.update(field(0.0, torch.float32).density, 0.05, StepRng(0, 0))
    p = points(500, radius=1.19).float()
    optical_depth = 0.05 * field(0.0, torch.float32).density(p)
    occupied = grid.at(p.t())
    assert occupied[optical_depth > 0.1].all()
    assert not occupied[optical_depth < 0.001].any()


def test_occupancy_forgets_slowly_and_finds_at_once():
    grid = OccupancyGrid(OccupancySettings(resolution=4, decay=0.5, threshold=0.1), 1.0, "cpu")
    here, there = torch.tensor([[0.9, -0.9]] * 3).split(1, dim=1)

    def only_there(p):
        return 0.8 * (p < 0.0).all(dim=-1)

    grid.update(lambda p: only_there(p) + (p > 0.5).all(dim=-1), 1.0, StepRng(0, 0))
    assert grid.at(here).item()
    found = []
    for step in range(1, 6):  # what is seen of it: 1/2, 1/4, 1/8, 1/16 of 1
        grid.update(only_there, 1.0, StepRng(0, step))
        assert grid.at(there).item()
        found.append(grid.at(here).item())
    assert found == [True, True, True, False, False]
    grid.update(lambda p: only_there(p) + (p > 0.5).all(dim=-1), 1.0, StepRng(0, 6))
    assert grid.at(here).item()


def test_harmonics_are_orthonormal():
    n = 40_000
    i = torch.arange(n, dtype=torch.float64) + 0.5
    z, turn = 1.0 - 2.0 * i / n, i * math.pi * (3.0 - math.sqrt(5.0))
    ring = torch.sqrt(1.0 - z * z)
    y = spherical_harmonics(torch.stack([ring * torch.cos(turn), ring * torch.sin(turn), z], dim=-1))
    gram = 4.0 * math.pi * y.t() @ y / n
    torch.testing.assert_close(gram, torch.eye(9, dtype=torch.float64), atol=1e-4, rtol=0.0)


def test_environment_is_a_colour_for_a_direction():
    params = Environment.initial(StepRng(0, -1))
    directions = torch.nn.functional.normalize(points().float(), dim=-1)
    colors = Environment(params)(directions)
    assert colors.shape == (50, 3)
    assert ((colors > 0) & (colors < 1)).all()
    assert colors.std(dim=0).min() > 0


@pytest.mark.parametrize(
    "wrong",
    [{"radius": 0.0}, {"hidden": 0}, {"blob_std": -1.0}, {"blob_scale": -1.0}, {"density_scale": 0.0}],
)
def test_mistakes_of_the_field_are_named(wrong):
    with pytest.raises(TraceBenchError, match=r"representation\.field"):
        FieldSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"resolution": 0}, {"every": 0}, {"threshold": -1}, {"decay": 2.0}])
def test_mistakes_of_the_occupancy_are_named(wrong):
    with pytest.raises(TraceBenchError, match=r"representation\.occupancy"):
        OccupancySettings(**wrong)
