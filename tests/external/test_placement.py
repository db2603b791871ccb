"""Placing an external object in our world."""

from __future__ import annotations

import math

import pytest
import torch

from trace_bench.external.placement import Placement
from trace_bench.system.errors import TraceBenchError


def test_y_up_with_its_front_at_plus_z():
    """glTF's up and front become ours, and its right stays right (no mirror)."""
    rotation = Placement(up="y").rotation()
    torch.testing.assert_close(rotation @ torch.tensor([0.0, 1.0, 0.0]).double(), _axis(2))
    torch.testing.assert_close(rotation @ torch.tensor([0.0, 0.0, 1.0]).double(), _axis(0))
    assert torch.linalg.det(rotation) == pytest.approx(1.0)


def _axis(i):
    return torch.eye(3, dtype=torch.float64)[i]


def test_a_turn_is_about_our_vertical_axis():
    placed, scale = Placement(up="y", turn_deg=90.0)(torch.tensor([[0.0, 2.0, 1.0]]))
    torch.testing.assert_close(placed, torch.tensor([[0.0, 1.0, 2.0]]), atol=1e-6, rtol=0)
    assert scale == 1.0
    assert placed.dtype == torch.float32


def test_a_radius_centres_the_box_and_scales():
    points = torch.tensor([[10.0, 0.0, 0.0], [14.0, 0.0, 0.0], [12.0, 1.0, 0.0]])
    placed, scale = Placement(radius=0.8)(points)
    torch.testing.assert_close(placed.amin(0)[:2], -placed.amax(0)[:2])
    assert placed.norm(dim=-1).max() == pytest.approx(0.8)
    assert scale == pytest.approx(0.8 / math.hypot(2.0, 0.5))
    assert torch.equal(Placement()(points)[0], points)


def test_gaussians_turn_and_grow_with_their_places():
    """The covariance of each Gaussian is transformed like its position."""
    torch.manual_seed(0)
    n = 6
    params = {"means": torch.randn(n, 3), "quats": torch.randn(n, 4), "scales": 0.3 * torch.randn(n, 3)}
    params |= {"opacities": torch.zeros(n), "sh0": torch.zeros(n, 1, 3)}
    placement = Placement(up="y", turn_deg=30.0, radius=0.7)
    placed = placement.place_splats(params)
    _, scale = placement(params["means"])
    space = scale * placement.rotation().float()
    wanted = space @ covariance(params) @ space.T
    torch.testing.assert_close(covariance(placed), wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(placed["means"], placement(params["means"])[0])
    assert set(placed) == set(params)


def covariance(params):
    from gsplat.utils import normalized_quat_to_rotmat

    axes = normalized_quat_to_rotmat(torch.nn.functional.normalize(params["quats"], dim=-1))
    scaled = axes * params["scales"].exp()[:, None, :]
    return scaled @ scaled.transpose(1, 2)


def test_wrong_settings():
    with pytest.raises(TraceBenchError, match="up='x' is not one of z, y"):
        Placement(up="x")
    with pytest.raises(TraceBenchError, match="radius must be above 0"):
        Placement(radius=0.0)
    with pytest.raises(TraceBenchError, match="All points are identical"):
        Placement(radius=1.0)(torch.ones(2, 3))
