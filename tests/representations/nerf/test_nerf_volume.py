"""Rays, samples, compositing, losses and light against closed forms or naive loops."""

from __future__ import annotations

import math

import pytest
import torch

from trace_bench.cameras import make_cameras
from trace_bench.progress import Progress
from trace_bench.representations.nerf import losses
from trace_bench.representations.nerf.rays import Rays, Samples, camera_rays, march
from trace_bench.representations.nerf.schedule import LevelSchedule, ResolutionSchedule
from trace_bench.representations.nerf.shading import ShadingSettings, light_positions, shade
from trace_bench.representations.nerf.volume import accumulate, opacity, render_weights
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError


def packed(counts, seed=0):
    """Samples with `counts` on each ray, and a random optical depth for each."""
    counts = torch.tensor(counts)
    ray = torch.repeat_interleave(torch.arange(len(counts)), counts)
    rng = torch.Generator().manual_seed(seed)
    t = torch.rand(len(ray), generator=rng, dtype=torch.float64)
    tau = torch.rand(len(ray), generator=rng, dtype=torch.float64)
    return Samples(ray, counts, t, torch.zeros(len(ray), 3)), tau


def test_compositing_is_the_naive_loop():
    samples, tau = packed([3, 0, 5, 1, 0, 7])
    values = torch.rand(16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = render_weights(tau, samples)
    total = accumulate(weights[:, None] * values, samples)
    alpha = opacity(tau, samples)
    for ray in range(6):
        left, color = 1.0, torch.zeros(3, dtype=torch.float64)
        for i in (samples.ray == ray).nonzero()[:, 0]:
            a = 1.0 - math.exp(-float(tau[i]))
            color = color + left * a * values[i]
            left *= 1.0 - a
        torch.testing.assert_close(total[ray], color)
        assert float(alpha[ray]) == pytest.approx(1.0 - left)


def test_compositing_gradient():
    samples, tau = packed([3, 0, 5, 1])
    tau.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: render_weights(x, samples), tau)
    assert torch.autograd.gradcheck(lambda x: opacity(x, samples), tau)


def test_long_rays_lose_no_precision_to_those_before_them():
    """A thin ray after a million opaque samples."""
    n = 1_000_000
    tau = torch.cat([torch.full((n,), 50.0), torch.full((4,), 1e-3)])
    ray = torch.cat([torch.zeros(n, dtype=torch.long), torch.ones(4, dtype=torch.long)])
    samples = Samples(ray, torch.tensor([n, 4]), tau, torch.zeros(n + 4, 3))
    expected = -torch.expm1(torch.tensor(-1e-3)) * torch.exp(-1e-3 * torch.arange(4.0))
    torch.testing.assert_close(render_weights(tau, samples)[n:], expected, rtol=1e-5, atol=0.0)


def ray_along_x(n=1, y=0.0):
    origins = torch.tensor([[-3.0, y, 0.0]]).expand(n, 3)
    directions = torch.tensor([[1.0, 0.0, 0.0]]).expand(n, 3)
    return Rays(origins, directions, torch.ones(n), torch.full((n,), 2.0), torch.full((n,), 4.0))


@pytest.mark.parametrize(("sigma", "thickness"), [(0.5, 2.0), (3.0, 0.5), (20.0, 0.25)])
def test_slab_of_constant_density(sigma, thickness):
    """1 - exp(-sigma d)."""
    step = 1 / 256
    rays = ray_along_x()
    samples = march(rays, lambda p: p[0].abs() < thickness / 2, step, 1000, torch.full((1,), 0.5))
    tau = torch.full((len(samples.t),), sigma * step)
    assert float(opacity(tau, samples)) == pytest.approx(1.0 - math.exp(-sigma * thickness), rel=1e-4)
    # expected depth: front of the slab + the mean of the truncated exponential
    weights = render_weights(tau, samples)
    depth = float((weights * samples.t).sum() / weights.sum())
    exact = 3.0 - thickness / 2 + 1 / sigma - thickness / math.expm1(sigma * thickness)
    assert depth == pytest.approx(exact, abs=step)


def test_samples_are_in_order_jittered_and_in_the_cube():
    jitter = torch.tensor([0.0, 0.25, 0.99])
    samples = march(ray_along_x(3), lambda p: torch.ones_like(p[0], dtype=torch.bool), 0.3, 100, jitter)
    for ray in range(3):
        expected = torch.arange(2.0 + 0.3 * float(jitter[ray]), 4.0, 0.3)
        torch.testing.assert_close(samples.t[samples.ray == ray], expected)
    assert samples.counts.tolist() == [7, 7, 6]
    torch.testing.assert_close(samples.positions[:, 0], samples.t - 3.0)


def test_rays_go_through_the_pixels_of_the_projection():
    cameras = make_cameras([20.0, -5.0], [30.0, -140.0], [2.6, 2.2], [42.0, 50.0], 9, 7)
    rays = camera_rays(cameras, 0.8)
    depth = 1.7
    points = rays.origins + (depth / rays.cosines)[:, None] * rays.directions
    homogeneous = torch.cat([points, torch.ones(len(points), 1)], dim=-1).view(2, 63, 4)
    seen = torch.einsum("bij,bnj->bni", cameras.viewmats, homogeneous)[..., :3]
    torch.testing.assert_close(seen[..., 2], torch.full((2, 63), depth))  # `cosines` turns t into z-depth
    pixels = torch.einsum("bij,bnj->bni", cameras.Ks, seen / depth)[..., :2].view(2, 7, 9, 2)
    torch.testing.assert_close(pixels[..., 0], (torch.arange(9) + 0.5).expand(2, 7, 9), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        pixels[..., 1], (torch.arange(7) + 0.5)[:, None].expand(2, 7, 9), atol=1e-4, rtol=0
    )


def test_near_and_far_are_the_cubes_faces():
    cameras = make_cameras([20.0], [30.0], [2.6], [60.0], 33, 33)
    rays = camera_rays(cameras, 0.8)
    hit = rays.far > rays.near
    assert 0 < hit.sum() < len(hit)
    for t in (rays.near, rays.far):
        surface = (rays.origins + t[:, None] * rays.directions)[hit]
        torch.testing.assert_close(surface.abs().amax(dim=-1), torch.full((int(hit.sum()),), 0.8))
    inside = camera_rays(make_cameras([0.0], [0.0], [0.5], [60.0], 8, 8), 0.8)
    assert (inside.near == 0.0).all()
    assert (inside.far > 0.0).all()


def test_a_ray_in_the_plane_of_a_face_is_finite():
    rays = camera_rays(make_cameras([0.0], [0.0], [2.0], [40.0], 5, 5), 0.8)  # the middle ray is along -x
    assert torch.isfinite(rays.near).all()
    assert torch.isfinite(rays.far).all()
    assert float(rays.far[12] - rays.near[12]) == pytest.approx(1.6)


def test_losses_by_hand():
    alpha = torch.tensor([0.0, 1.0, 0.5])
    assert float(losses.sparsity(alpha)) == pytest.approx((0.1 + math.sqrt(1.01) + math.sqrt(0.26)) / 3)
    edge = -(0.001 * math.log(0.001) + 0.999 * math.log(0.999))
    assert float(losses.opaque(alpha)) == pytest.approx((2 * edge + math.log(2.0)) / 3, rel=1e-4)

    weights = torch.tensor([0.5, 0.25, 0.25], requires_grad=True)
    normals = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.6, 0.8, 0.0]], requires_grad=True)
    directions = torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3)
    loss = losses.orientation(weights, normals, directions, alpha)
    assert loss.item() == pytest.approx((0.5 * 1.0 + 0.25 * 0.36) / 2)
    loss.backward()
    assert weights.grad is None  # the loss turns normals, it does not thin the field
    assert (normals.grad[1] == 0).all()

    variance = torch.tensor([0.3, 0.2, 0.7])
    assert float(losses.z_variance(variance, alpha)) == pytest.approx(0.2)  # o > 0.5 alone
    assert float(losses.z_variance(variance, torch.zeros(3))) == 0.0
    assert losses.orientation(weights, normals, directions, torch.zeros(3)).isfinite()


def test_convexity_prefers_a_ball_to_a_bowl():
    """Observation from the front (+x): world y is to the right, z up."""
    z, y = torch.meshgrid(torch.linspace(0.6, -0.6, 32), torch.linspace(-0.6, 0.6, 32), indexing="ij")
    ball = torch.stack([torch.sqrt(1.0 - y * y - z * z), y, z], dim=-1)[None]
    bowl = ball * torch.tensor([1.0, -1.0, -1.0])
    flat = torch.tensor([1.0, 0.0, 0.0]).expand(1, 32, 32, 3)
    alpha = torch.ones(1, 32, 32, 1)
    round_, plane, hollow = (float(losses.convexity(normals, alpha)) for normals in (ball, flat, bowl))
    assert plane == pytest.approx(0.0, abs=1e-6)
    assert round_ < -0.01
    assert hollow > 0.01


def test_shade_by_hand():
    albedo = torch.tensor([[0.2, 0.4, 0.8]] * 3)
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    positions, lights = torch.zeros(3, 3), torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 2.0], [1.0, 0.0, 1.0]])
    light = torch.tensor([1.0, 0.1, 0.1 + 0.9 / math.sqrt(2.0)])[:, None]
    torch.testing.assert_close(shade(albedo, normals, positions, lights, "diffuse"), albedo * light)
    textureless = shade(albedo, normals, positions, lights, "textureless")
    torch.testing.assert_close(textureless, light.expand(3, 3))
    # CSD's textureless_normal: the normals as colours
    shown = ShadingSettings(textureless_shows="normals")
    as_normals = shade(albedo, normals, positions, lights, "textureless", shown)
    torch.testing.assert_close(as_normals, normals * 0.5 + 0.5)
    torch.testing.assert_close(shade(albedo, normals, positions, lights, "diffuse", shown), albedo * light)
    # Consistent3D's ambient light of 1 and no diffuse light: the albedo, and a white shape
    flat = ShadingSettings(ambient_light=1.0, diffuse_light=0.0)
    torch.testing.assert_close(shade(albedo, normals, positions, lights, "diffuse", flat), albedo)
    white = shade(albedo, normals, positions, lights, "textureless", flat)
    torch.testing.assert_close(white, torch.ones(3, 3))


def test_kind_of_light_follows_its_probabilities_and_the_run():
    settings = ShadingSettings(diffuse=0.75, textureless=0.5, ambient_until=0.2)
    kinds = [settings.at(0.5, StepRng(0, k)) for k in range(2000)]
    for kind, share in (("albedo", 0.25), ("textureless", 0.375), ("diffuse", 0.375)):
        assert kinds.count(kind) / 2000 == pytest.approx(share, abs=0.04)
    assert {settings.at(0.19, StepRng(0, k)) for k in range(50)} == {"albedo"}
    assert {ShadingSettings().at(0.9, StepRng(0, k)) for k in range(50)} == {"albedo"}


def test_lights_stand_about_their_cameras_at_the_published_distance():
    cameras_at = torch.tensor([[2.0, 0.0, 0.0]]).expand(500, 3)
    lights = light_positions(cameras_at, StepRng(0, 0))
    distance = lights.norm(dim=-1)
    assert 0.8 <= distance.min() < 0.85
    assert 1.45 < distance.max() <= 1.5
    assert lights.mean(dim=0)[0] > 0.7
    assert lights.mean(dim=0)[1:].abs().max() < 0.1
    torch.testing.assert_close(light_positions(cameras_at[:2], StepRng(0, 0)), lights[:2])


def test_levels_are_threestudios():
    """dreamfusion-sd: 8 levels until step 2000 of 10,000, then one more every 500, up to 16."""
    schedule = LevelSchedule(start=8, begin=0.2, every=0.05)
    for step, levels in (
        (0, 8),
        (2000, 8),
        (2499, 8),
        (2500, 9),
        (3000, 10),
        (5999, 15),
        (6000, 16),
        (9999, 16),
    ):
        assert schedule.active(Progress(step, 10_000).fraction, 16) == levels
    assert LevelSchedule().active(0.0, 16) == 16


def test_resolution_schedule():
    schedule = ResolutionSchedule([[0.0, 16], [0.2, 64]])
    cameras = make_cameras([20.0], [30.0], [2.6], [42.0], 64, 48)
    small = schedule.cameras(cameras, 0.1)
    assert (small.width, small.height) == (21, 16)
    whole, part = camera_rays(cameras, 0.8), camera_rays(small, 0.8)
    torch.testing.assert_close(part.directions.mean(dim=0), whole.directions.mean(dim=0), atol=1e-4, rtol=0)
    assert part.cosines.min() == pytest.approx(float(whole.cosines.min()), abs=0.02)  # the same field of view
    assert schedule.cameras(cameras, 0.2) is cameras
    assert ResolutionSchedule(None).cameras(cameras, 0.0) is cameras


@pytest.mark.parametrize("pairs", [[[0.1, 64]], [[0.0, 64], [0.5, 4]], [[0.0, 64], [0.5, 32], [0.3, 16]]])
def test_mistakes_of_the_resolution_schedule_are_named(pairs):
    with pytest.raises(TraceBenchError, match="resolution_schedule"):
        ResolutionSchedule(pairs)


@pytest.mark.parametrize("wrong", [{"start": 0}, {"begin": -0.1}, {"every": 0.0}])
def test_mistakes_of_the_levels_are_named(wrong):
    with pytest.raises(TraceBenchError, match=r"representation\.levels"):
        LevelSchedule(**wrong)


def test_mistakes_of_the_shading_are_named():
    with pytest.raises(TraceBenchError, match=r"shading\.textureless"):
        ShadingSettings(textureless=1.5)
    with pytest.raises(TraceBenchError, match="textureless_shows='depth' is not one of"):
        ShadingSettings(textureless_shows="depth")
