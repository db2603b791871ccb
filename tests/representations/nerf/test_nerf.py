"""The NeRF as a representation: render, schedules, resume, independence of views, export, a fit."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from trace_bench.cameras import CameraRange, EvaluationRig, make_cameras, sample_cameras
from trace_bench.progress import Progress
from trace_bench.representations.nerf import NeRF
from trace_bench.representations.points import PointCloud
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld import scene_from_prompt

CONF = Path(__file__).resolve().parents[3] / "conf"
SMALL = {
    "field": {"radius": 0.85, "hidden": 16},
    "hash_grid": {"levels": 4, "log2_size": 12, "base": 6, "growth": 1.6},
    "levels": {"start": None},
    "occupancy": {"resolution": 16, "every": 2},
    "samples_per_ray": 48,
    "mesh": {"resolution": 24},
    "losses": {"orientation": 0.0},
    "background": "given",
}
EVERYTHING = SMALL | {
    "levels": {"start": 2, "begin": 0.2, "every": 0.3},
    "resolution_schedule": [[0.0, 12], [0.4, 20]],
    "background": "learned",
    "background_augment": 0.5,
    "shading": {"diffuse": 0.8, "textureless": 0.5, "ambient_until": 0.2},
    "losses": {"opaque": 1.0, "orientation": [0.0, 10.0, 100.0, 0.5], "z_variance": 1.0, "convexity": 0.1},
}


def make(seed=0, **hyper):
    return NeRF(None, 64, (4, 16, 16), seed, "cpu", **(SMALL | hyper))


def ring(n=3, size=20):
    return make_cameras(15.0, torch.arange(n) * 360.0 / n, 2.65, 42.5, size, size)


def one_step(nerf, k, n, scale=1.0):
    """A step towards a random picture, as the core does it."""
    rng = Rng(0).at(k)
    render = nerf.render(sample_cameras(2, rng, CameraRange(), 20, 20), rng.uniform("background", (2, 3)))
    nerf.pre_backward(render)
    target = rng.uniform("target", tuple(render.rgb.shape))
    loss = scale * ((render.rgb - target) ** 2).sum()
    (loss + nerf.regularisation(render, Progress(k, n), torch.tensor(scale))).backward()
    nerf.post_backward(render, Progress(k, n), torch.tensor(scale))
    return render


def ball(nerf):
    """Make the field a solid ball of radius 0.5: a steep blob, a zero table, all cells updated."""
    nerf.field.settings = replace(nerf.field.settings, blob_scale=3000.0, blob_std=0.5)
    with torch.no_grad():
        nerf.params["table"].zero_()
    nerf.occupancy.occupied.fill_(True)
    return nerf


def test_a_ball_looks_like_a_ball():
    nerf, rig = ball(make(samples_per_ray=150)), EvaluationRig(n_views=2, resolution=48)
    with torch.no_grad():
        render = nerf.render(rig.cameras(), torch.ones(3), with_normals=True)
    rays = rig.cameras()
    u = torch.arange(48) + 0.5
    x = (u - rays.Ks[0, 0, 2]) / rays.Ks[0, 0, 0]
    local = torch.stack(torch.broadcast_tensors(x[None, :], -x[:, None], torch.tensor(-1.0)), dim=-1)
    local = torch.nn.functional.normalize(local, dim=-1)
    middle = -local[..., 2] * rig.distance  # along the ray, to the point nearest to the centre
    miss2 = rig.distance**2 - middle**2
    hit = miss2 < 0.5**2
    disagree = (render.alpha[..., 0] > 0.5) != hit
    assert disagree.float().mean() < 0.01
    surely = miss2 < 0.42**2
    exact = (middle - torch.sqrt((0.25 - miss2).clamp(min=0.0))) * -local[..., 2]
    assert (render.depth[..., 0] - exact)[:, surely].abs().max() < 0.03  # a step of the march is 0.02
    points = rays.c2w[:, None, None, :3, 3] + torch.einsum(
        "bij,hwj->bhwi", rays.c2w[:, :3, :3], local * (exact / -local[..., 2])[..., None]
    )
    normals = torch.nn.functional.normalize(points, dim=-1)
    assert (render.normal * normals).sum(dim=-1)[:, surely].min() > 0.97
    empty = render.alpha[..., 0] == 0.0
    assert empty.any()
    assert (render.rgb[empty] == 1.0).all()
    assert (render.depth[empty] == 0.0).all()
    assert (render.normal[empty] == 0.0).all()


@pytest.mark.parametrize(("threshold", "worst", "mean"), [(1e-2, 0.06, 1e-2), (1e-3, 0.01, 2e-3)])
def test_skipping_empty_cells_changes_the_picture_by_no_more_than_the_threshold(threshold, worst, mean):
    nerf = make(occupancy={"resolution": 24, "every": 2, "threshold": threshold})
    for k in range(4):
        one_step(nerf, k, 4)
    nerf.occupancy.update(nerf.field.density, nerf.step, Rng(0).at(9))
    with torch.no_grad():
        skipped = nerf.render(ring(size=32), torch.zeros(3))
        share = nerf.occupancy.occupied.float().mean()
        nerf.occupancy.occupied.fill_(True)
        dense = nerf.render(ring(size=32), torch.zeros(3))
    assert share < 0.5
    assert len(skipped.info["samples"].t) < 0.7 * len(dense.info["samples"].t)
    assert (skipped.rgb - dense.rgb).abs().max() < worst
    assert (skipped.alpha - dense.alpha).abs().mean() < mean


def test_with_and_without_gradients_the_same_picture():
    """Except for the jitter, which is only used in training."""
    nerf = make()
    one_step(nerf, 0, 4)
    with torch.no_grad():
        shown = nerf.render(ring(), torch.ones(3), with_normals=True)
    trained = nerf.render(ring(), torch.ones(3), with_normals=True)
    assert (shown.rgb - trained.rgb).abs().mean() < 0.01
    assert trained.rgb.requires_grad
    assert not shown.rgb.requires_grad
    both = (shown.alpha[..., 0] > 0.9) & (trained.alpha[..., 0] > 0.9)
    assert (shown.normal * trained.normal).sum(dim=-1)[both].median() > 0.9


def test_gradient_of_a_pixel_against_finite_differences():
    nerf = make()
    one_step(nerf, 0, 4)

    def loss():
        return nerf.render(ring(1, 8), torch.ones(3)).rgb.double().square().sum()

    loss().backward()
    for name in ("density_in", "density_out", "color_in", "color_out"):
        param = nerf.params[name]
        direction = torch.sign(param.grad)
        h = 2e-3
        with torch.no_grad():
            param += h * direction
            above = with_jitter(loss)
            param -= 2 * h * direction
            below = with_jitter(loss)
            param += h * direction
        slope = float((param.grad * direction).sum())
        assert float(above - below) / (2 * h) == pytest.approx(slope, rel=0.05)


def with_jitter(loss):
    """Evaluate the loss with jitter, as in training, where the gradient was taken."""
    with torch.enable_grad():
        return loss().detach()


def test_views_of_a_batch_do_not_look_at_each_other():
    nerf = make(**EVERYTHING)
    one_step(nerf, 0, 4)
    background = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    both = nerf.render(ring(2), background)
    alone = nerf.render(ring(2)[:1], background[:1])
    torch.testing.assert_close(both.rgb[:1], alone.rgb, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both.depth[:1], alone.depth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hyper", [SMALL, EVERYTHING], ids=["small", "everything"])
def test_a_seed_gives_one_run_and_a_resumed_one_goes_on_bit_for_bit(hyper):
    n, checkpoint = 6, io.BytesIO()
    whole = make(**hyper)
    for k in range(n):
        if k == 3:
            torch.save(whole.state_dict(), checkpoint)
        last = one_step(whole, k, n)
    again = make(**hyper)
    for k in range(3):
        one_step(again, k, n)
    checkpoint.seek(0)
    resumed = make(seed=0, **hyper)
    resumed.load_state_dict(torch.load(checkpoint))
    for nerf in (again, resumed):
        for k in range(3, n):
            render = one_step(nerf, k, n)
        assert torch.equal(render.rgb, last.rgb)
        assert all(torch.equal(nerf.params[name], whole.params[name]) for name in whole.params)
        assert torch.equal(nerf.occupancy.values, whole.occupancy.values)
        assert nerf.field.active == whole.field.active
    other = make(seed=1, **hyper)
    assert not torch.equal(one_step(other, 0, n).rgb, one_step(make(**hyper), 0, n).rgb)


def test_everything_is_trained():
    nerf = make(**EVERYTHING)
    before = {name: param.detach().clone() for name, param in nerf.params.items()}
    for k in range(4):
        one_step(nerf, k, 4)
    assert all(not torch.equal(before[name], param) for name, param in nerf.params.items())
    assert all(param.grad is None for param in nerf.params.values())


def test_resolution_and_levels_follow_the_run():
    nerf = make(**EVERYTHING)
    sizes, levels = [], []
    for k in range(10):
        levels.append(nerf.field.active)
        sizes.append(one_step(nerf, k, 10).rgb.shape[1])
    assert sizes == [12] * 4 + [20] * 6
    assert levels == [2] * 5 + [3] * 3 + [4] * 2
    with torch.no_grad():
        assert nerf.render(ring(size=32), torch.ones(3)).rgb.shape[1] == 32


def test_learned_background_is_trainings_alone():
    nerf = make(background="learned")
    given = torch.tensor([1.0, 0.0, 0.0])
    corner = (slice(None), 0, 0)
    trained = nerf.render(ring(), given).rgb[corner]
    with torch.no_grad():
        shown = nerf.render(ring(), given).rgb[corner]
    torch.testing.assert_close(shown, given.expand(3, 3))
    assert (trained - given).abs().amax(dim=-1).min() > 0.1
    augmented = make(background="learned", background_augment=1.0).render(ring(), given).rgb[corner]
    torch.testing.assert_close(augmented, given.expand(3, 3))


def test_a_batch_has_one_coin_for_the_background():
    """threestudio/models/background/neural_environment_map_background.py, random_aug: one draw a step."""
    nerf = make(background="learned", background_augment=0.5)
    given = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    shares = []
    for k in range(40):
        nerf._enter(Progress(k, 40))
        corner = nerf.render(ring(), given).rgb[:, 0, 0]
        shares.append(float(((corner - given).abs().amax(dim=-1) < 1e-5).float().mean()))
    assert set(shares) == {0.0, 1.0}
    assert 10 <= sum(shares) <= 30


def test_normalised_losses_are_blind_to_the_methods_scale():
    for mode, factor in (("normalised", 10.0), ("raw", 1.0)):
        nerf = make(losses_mode=mode)
        render = nerf.render(ring(2), torch.ones(3))
        one, ten = (
            float(nerf.regularisation(render, Progress(0, 4), torch.tensor(rms)).detach())
            for rms in (1.0, 10.0)
        )
        assert ten == pytest.approx(factor * one)


def test_export(tmp_path):
    nerf = make()
    paths = nerf.export(tmp_path)
    assert sorted(path.name for path in paths) == ["asset.glb", "asset.obj", "asset.ply", "asset.safetensors"]
    saved = load_file(tmp_path / "asset.safetensors")
    assert all(torch.equal(saved[name], param) for name, param in nerf.params.items())
    assert nerf.n_primitives == sum(p.numel() for p in nerf.params.values())


def test_an_empty_field_is_exported_without_a_mesh(tmp_path, caplog):
    nerf = make(field=SMALL["field"] | {"blob_scale": 0.0}, mesh={"density": 5.0})
    assert [path.name for path in nerf.export(tmp_path)] == ["asset.safetensors"]
    assert "no mesh is written" in caplog.text


def test_fits_a_scene():
    """Fits pictures of a known scene, and is right from held-out views."""
    scene, n = scene_from_prompt("a red cube on a yellow cube"), 120
    grid = {"levels": 4, "log2_size": 13, "base": 6, "growth": 1.6, "smooth": True}
    field = SMALL["field"] | {"density_scale": 5.0}
    nerf = make(hash_grid=grid, field=field, lr_left=0.3)
    for k in range(n):
        cameras = sample_cameras(2, Rng(3).at(k), CameraRange(), 32, 32)
        background = Rng(3).at(k).uniform("background", (2, 3))
        render = nerf.render(cameras, background)
        ((render.rgb - scene.render(cameras, background).rgb) ** 2).sum().backward()
        nerf.post_backward(render, Progress(k, n), torch.tensor(1.0))
    cameras = EvaluationRig(n_views=3, resolution=32).cameras()
    truth = scene.render(cameras)
    with torch.no_grad():
        render = nerf.render(cameras, torch.ones(3))
    seen, there = render.alpha[..., 0] > 0.5, truth.alpha[..., 0] > 0.5
    iou = (seen & there).sum() / (seen | there).sum()
    both = seen & there
    assert iou > 0.85
    assert (render.rgb - truth.rgb)[both].abs().mean() < 0.1
    assert (render.depth - truth.depth)[both].abs().median() < 0.1


def test_points_are_refused_in_one_sentence():
    with pytest.raises(TraceBenchError, match=r"takes no initial points; use init=none"):
        NeRF(PointCloud(torch.zeros(1, 3), torch.zeros(1, 3)), 64, (4, 16, 16), 0, "cpu")


@pytest.mark.parametrize(
    "wrong",
    [
        {"background": "sky"},
        {"losses_mode": "odd"},
        {"samples_per_ray": 1},
        {"background_augment": 2.0},
        {"losses": {"smoothness": 1.0}},
        {"field": {"width": 3}},
        {"mesh": {"formats": ["stl"]}},
        {"lr": {"grid": 0.0}},
    ],
)
def test_mistakes_are_named(wrong):
    with pytest.raises(TraceBenchError, match=rf"representation\.{next(iter(wrong))}"):
        make(**wrong)


PRESETS = sorted(CONF.glob("protocol/*/*/*nerf.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: "-".join(path.with_suffix("").parts[-3:]))
def test_presets_are_taken(path):
    """Every preset composes with the representation's YAML and is accepted by the class."""
    base = yaml.safe_load((CONF / "representation" / "nerf.yaml").read_text())
    preset = yaml.safe_load(path.read_text()).get("representation", {})
    for name, value in preset.items():
        assert name in base
        if isinstance(value, dict):
            assert set(value) <= set(base[name])
