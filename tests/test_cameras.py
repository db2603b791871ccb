"""Cameras: the world's axes, OpenGL and OpenCV poses, intrinsics, and the distributions they come from."""

from __future__ import annotations

import math

import pytest
import torch

from trace_bench.cameras import CameraRange, EvaluationRig, make_cameras, sample_cameras
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError


def project(cameras, points):
    """Pixels [B, N, 2] and depths [B, N] of world points [N, 3], in OpenCV's convention."""
    rotation, translation = cameras.viewmats[:, :3, :3], cameras.viewmats[:, :3, 3]
    local = torch.einsum("bij,nj->bni", rotation, points) + translation[:, None]
    pixels = torch.einsum("bij,bnj->bni", cameras.Ks, local)
    return pixels[..., :2] / pixels[..., 2:], local[..., 2]


def test_azimuth_zero_looks_from_plus_x_with_z_up():
    camera = make_cameras(0.0, 0.0, 2.0, 45.0, 64, 64)
    right, up, backward, position = camera.c2w[0, :3].T
    assert torch.allclose(position, torch.tensor([2.0, 0.0, 0.0]), atol=1e-6)
    assert torch.allclose(backward, torch.tensor([1.0, 0.0, 0.0]), atol=1e-6)
    assert torch.allclose(up, torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)
    assert torch.allclose(right, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_poses_are_rigid_and_viewmats_invert_c2w_in_opencv_axes():
    cameras = make_cameras(
        torch.tensor([-10.0, 30.0, 85.0, 90.0]), torch.tensor([0.0, 100.0, -170.0, 45.0]), 2.6, 42.0, 64, 48
    )
    rotation = cameras.c2w[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(4, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(4), atol=1e-5)
    opencv = cameras.c2w @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    assert torch.allclose(cameras.viewmats @ opencv, torch.eye(4).expand(4, 4, 4), atol=1e-5)


def test_origin_projects_to_the_centre_and_axes_to_their_sides():
    cameras = make_cameras(torch.tensor([0.0, 20.0]), torch.tensor([0.0, 0.0]), 2.5, 40.0, 80, 60)
    pixels, depth = project(cameras, torch.tensor([[0.0, 0, 0], [0.0, 0.3, 0], [0.0, 0, 0.3]]))
    assert torch.allclose(pixels[:, 0], torch.tensor([40.0, 30.0]), atol=1e-4)
    assert torch.allclose(depth[:, 0], torch.full((2,), 2.5), atol=1e-5)
    assert (pixels[:, 1, 0] > 40.0).all()  # +y is on the right of a front view
    assert (pixels[:, 2, 1] < 30.0).all()  # +z is up


def test_field_of_view_spans_the_image_height():
    camera = make_cameras(0.0, 0.0, 2.0, 50.0, 64, 64)
    top = 2.0 * math.tan(math.radians(25.0))
    pixels, _ = project(camera, torch.tensor([[0.0, 0.0, top]]))
    assert pixels[0, 0, 1].item() == pytest.approx(0.0, abs=1e-3)


def test_azimuth_is_wrapped_and_slices_keep_their_cameras():
    cameras = make_cameras(0.0, torch.tensor([0.0, 90.0, 180.0, 270.0]), 2.0, 45.0, 64, 64)
    assert cameras.azimuth_deg.tolist() == [0.0, 90.0, -180.0, -90.0]
    part = cameras[1:3]
    assert len(part) == 2
    assert torch.equal(part.c2w, cameras.c2w[1:3])
    assert part.width == 64


def test_sampled_azimuths_are_stratified_and_ranges_kept():
    n, seen = 8, []
    for step in range(60):
        cameras = sample_cameras(n, Rng(3).at(step), CameraRange(), 64, 64)
        strata = ((cameras.azimuth_deg + 180.0) / (360.0 / n)).floor().long()
        assert strata.tolist() == list(range(n))
        seen.append(cameras)
    elevation = torch.cat([c.elevation_deg for c in seen])
    distance = torch.cat([c.distance for c in seen])
    fovy = torch.cat([c.fovy_deg for c in seen])
    assert -10.0 <= elevation.min() < -5.0
    assert 55.0 < elevation.max() <= 60.0
    assert 2.5 <= distance.min() < 2.55
    assert 2.75 < distance.max() <= 2.8
    assert 40.0 <= fovy.min() < 41.0
    assert 44.0 < fovy.max() <= 45.0


def test_elevation_is_half_uniform_in_angle_and_half_on_the_sphere():
    """The mean of an equal mixture over -10 to 60 degrees, against its closed form."""
    elevation = torch.cat(
        [sample_cameras(8, Rng(0).at(k), CameraRange(), 64, 64).elevation_deg for k in range(400)]
    )
    low, high = math.radians(-10.0), math.radians(60.0)
    on_sphere = math.degrees(
        ((high * math.sin(high) + math.cos(high)) - (low * math.sin(low) + math.cos(low)))
        / (math.sin(high) - math.sin(low))
    )
    assert elevation.mean().item() == pytest.approx(0.5 * (25.0 + on_sphere), abs=1.0)


def drawn(views, steps, **settings):
    """Elevations [steps, views] over -10 to 60 degrees."""
    where = CameraRange(**settings)
    return torch.stack(
        [sample_cameras(views, Rng(0).at(k), where, 64, 64).elevation_deg for k in range(steps)]
    )


@pytest.mark.parametrize(
    ("distribution", "band"),
    [
        # threestudio/data/uncond.py of GaussianDreamer, TraCe, CSD and Consistent3D: asin(2 u - 1), u uniform
        # from (-10 + 90) / 180 to (60 + 90) / 180
        ("released", (-6.379, 41.810)),
        # threestudio's head: uniform between the sines of the ends
        ("threestudio", (-10.0, 60.0)),
    ],
)
def test_a_batch_tosses_one_coin(distribution, band):
    """Half of the batches are uniform in degrees; the others have equal shares of the sines of their band."""
    elevation = drawn(8, 1500, distribution=distribution)
    assert -10.0 <= elevation.min() < -9.5
    assert 59.5 < elevation.max() <= 60.0
    angle = torch.tensor([sample_kind(k) for k in range(1500)])
    assert angle.float().mean().item() == pytest.approx(0.5, abs=0.05)
    in_degrees, on_sphere = elevation[angle].flatten(), elevation[~angle].flatten()
    assert in_degrees.mean().item() == pytest.approx(25.0, abs=1.0)
    low, high = (math.sin(math.radians(end)) for end in band)
    assert on_sphere.min().item() == pytest.approx(band[0], abs=0.2)
    assert on_sphere.max().item() == pytest.approx(band[1], abs=0.2)
    sines = on_sphere.deg2rad().sin()
    assert sines.mean().item() == pytest.approx(0.5 * (low + high), abs=0.01)


def sample_kind(step):
    """The coin of a batch: true for uniform in degrees."""
    return bool(Rng(0).at(step).uniform("camera_elevation_kind", (1,)) < 0.5)


def test_each_view_tosses_its_own_coin_in_the_toy_world():
    """Half of the views of a batch, and not half of the batches, are uniform in degrees."""
    own, one = (drawn(8, 600, distribution=name) for name in ("per_view", "threestudio"))
    assert CameraRange().distribution == "per_view"
    differs = (own != one).float().mean(dim=1)  # where the view's coin is not the first view's
    assert differs.mean().item() == pytest.approx(7 / 16, abs=0.03)


def test_azimuths_in_a_number_of_strata_around_the_front():
    """Consistent3D's coarse stage: 8 views in 4 strata from -135 degrees on (azimuth_range, n_views)."""
    for step in range(50):
        azimuth = sample_cameras(8, Rng(1).at(step), CameraRange(azimuth_strata=4), 64, 64).azimuth_deg
        strata = ((azimuth + 135.0) % 360.0 / 90.0).floor().long()
        assert strata.tolist() == [0, 1, 2, 3] * 2


def test_the_same_step_draws_the_same_cameras():
    one, two = (sample_cameras(4, Rng(7).at(11), CameraRange(), 64, 64) for _ in range(2))
    assert torch.equal(one.c2w, two.c2w)
    assert not torch.equal(one.c2w, sample_cameras(4, Rng(7).at(12), CameraRange(), 64, 64).c2w)


def test_impossible_ranges_are_refused():
    with pytest.raises(TraceBenchError, match=r"elevation_deg=\(60.0, -10.0\)"):
        CameraRange(elevation_deg=(60.0, -10.0))
    with pytest.raises(TraceBenchError, match="fovy_deg"):
        CameraRange(fovy_deg=(40.0, 200.0))
    with pytest.raises(TraceBenchError, match="distribution='uniform' is not one of"):
        CameraRange(distribution="uniform")
    with pytest.raises(TraceBenchError, match="azimuth_strata must be"):
        CameraRange(azimuth_strata=0)


def test_the_rig_starts_at_the_front_and_goes_round():
    rig = EvaluationRig(n_views=6, elevation_deg=15.0, distance=2.65, fovy_deg=42.5, resolution=64).cameras()
    assert rig.azimuth_deg.tolist() == [0.0, 60.0, 120.0, -180.0, -120.0, -60.0]
    assert torch.allclose(rig.elevation_deg, torch.full((6,), 15.0))
    assert rig.width == rig.height == 64
