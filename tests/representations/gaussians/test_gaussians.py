"""3D Gaussians: init, render, losses, schedules, export, resume, and a fit that is right from all sides."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file

from trace_bench.cameras import CameraRange, EvaluationRig, make_cameras, sample_cameras
from trace_bench.inits.random import RandomBall
from trace_bench.progress import Progress
from trace_bench.representations.bounded import bounded
from trace_bench.representations.gaussians.gaussians import Gaussians
from trace_bench.representations.gaussians.ply import read_splat_ply
from trace_bench.representations.points import PointCloud
from trace_bench.seeding import Rng
from trace_bench.settings.config import check_settings, settings_of
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld import scene_from_prompt

TOY_LR = {"means": 2e-3, "scales": 8e-3, "opacities": 2e-2, "sh0": 2e-2}


def make(points=None, **hyper):
    if points is None:
        points = RandomBall(n=200)(Rng(0).at(-1))
    return Gaussians(points, 64, (4, 16, 16), 0, "cpu", **hyper)


def ring(n=3, size=32):
    return make_cameras(15.0, torch.arange(n) * 360.0 / n, 2.65, 42.5, size, size)


def one_step(gaussians, k, n, seed=0, scale=1.0):
    """A step towards a random picture, as the core does it."""
    rng = Rng(seed).at(k)
    render = gaussians.render(
        sample_cameras(2, rng, CameraRange(), 24, 24), rng.uniform("background", (2, 3))
    )
    gaussians.pre_backward(render)
    target = rng.uniform("target", tuple(render.rgb.shape))
    loss = scale * ((render.rgb - target) ** 2).sum()
    loss = loss + gaussians.regularisation(render, Progress(k, n), torch.tensor(scale))
    loss.backward()
    gaussians.post_backward(render, Progress(k, n), torch.tensor(scale))
    return render


def test_start():
    points = RandomBall(n=50)(Rng(1).at(-1))
    params = make(points).params
    distances = torch.cdist(points.positions, points.positions).sort(dim=-1).values[:, 1:4]
    torch.testing.assert_close(
        params["scales"].exp(), distances.square().mean(-1).sqrt()[:, None].expand(-1, 3)
    )
    torch.testing.assert_close(params["opacities"].sigmoid(), torch.full((50,), 0.1))
    assert torch.equal(params["quats"], torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(50, 4))
    torch.testing.assert_close(0.5 + 0.28209479177387814 * params["sh0"][:, 0], points.colors)


def test_a_single_point_and_coincident_points_start_too():
    for n in (1, 3):
        gaussians = make(PointCloud(torch.zeros(n, 3), torch.ones(n, 3)))
        torch.testing.assert_close(gaussians.params["scales"].exp(), torch.full((n, 3), math.sqrt(1e-7)))
        assert gaussians.render(ring(), torch.zeros(3)).rgb.isfinite().all()


def test_render_has_the_shapes_of_the_contract():
    gaussians, cameras = make(), ring(3, 32)
    render = gaussians.render(cameras, torch.rand(3, 3), with_normals=True)
    assert render.rgb.shape == render.normal.shape == (3, 32, 32, 3)
    assert render.alpha.shape == render.depth.shape == (3, 32, 32, 1)
    assert 0.0 <= render.rgb.min() <= render.rgb.max() <= 1.0
    assert gaussians.render(cameras, torch.ones(3)).normal is None
    empty = render.alpha[..., 0] == 0
    assert empty.any()
    assert (render.depth[empty] == 0).all()
    assert (render.normal[empty] == 0).all()
    torch.testing.assert_close(render.normal[~empty].norm(dim=-1), torch.ones(int((~empty).sum())))


def test_background_is_one_colour_for_all_or_one_a_view():
    gaussians, cameras = make(), ring(2)
    colours = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    together = gaussians.render(cameras, colours).rgb
    for i in range(2):
        torch.testing.assert_close(together[i], gaussians.render(cameras, colours[i]).rgb[i])
    empty = gaussians.render(cameras, colours).alpha[..., 0] == 0
    for i in range(2):
        assert empty[i].any()
        assert (together[i][empty[i]] == colours[i]).all()


def test_depth_and_normals_of_a_flat_disc():
    """A disc facing +x, from the front and from behind: z-depth of its centre, normal towards the viewer."""
    gaussians = make(PointCloud(torch.tensor([[0.3, 0.0, 0.0]]), torch.ones(1, 3)), opacity=0.99)
    with torch.no_grad():
        gaussians.params["scales"].copy_(torch.log(torch.tensor([[0.001, 0.3, 0.3]])))
    front = make_cameras(0.0, torch.tensor([0.0, 180.0]), 2.5, 40.0, 33, 33)
    render = gaussians.render(front, torch.zeros(3), with_normals=True)
    torch.testing.assert_close(render.depth[:, 16, 16, 0], torch.tensor([2.2, 2.8]), rtol=1e-4, atol=1e-4)
    expected = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    torch.testing.assert_close(render.normal[:, 16, 16], expected, rtol=1e-4, atol=1e-4)


def test_regularisation():
    cameras = ring(2)
    for opacity_from in ("alpha", "depth"):
        gaussians = make(losses={"sparsity": 2.0, "opaque": 3.0}, opacity_from=opacity_from)
        render = gaussians.render(cameras, torch.zeros(3))
        o = render.alpha
        if opacity_from == "depth":
            accumulated = render.depth * render.alpha
            o = accumulated / (accumulated.max() + 1e-5)
        c = o.clamp(1e-3, 1 - 1e-3)
        entropy = -(c * c.log() + (1 - c) * (1 - c).log()).mean()
        expected = 2.0 * (o**2 + 0.01).sqrt().mean() + 3.0 * entropy
        rms = torch.tensor(0.3)
        torch.testing.assert_close(gaussians.regularisation(render, Progress(0, 10), rms), expected)
        gaussians.losses_mode = "normalised"  # in units of a view's gradient, which is B times the batch's
        torch.testing.assert_close(gaussians.regularisation(render, Progress(0, 10), rms), 0.6 * expected)


def test_total_variation_and_size_of_lucid_dreamer():
    gaussians = make(losses={"sparsity": 0.0, "tv_rgb": 2.0, "tv_disparity": 3.0, "scale": 5.0})
    render = gaussians.render(ring(2), torch.zeros(3))

    def variation(
        x,
    ):  # squared differences over their number in one picture
        h = ((x[:, 1:] - x[:, :-1]) ** 2).sum() / x[0, 1:].numel()
        w = ((x[:, :, 1:] - x[:, :, :-1]) ** 2).sum() / x[0, :, 1:].numel()
        return 2.0 * (h + w) / len(x)

    seen = render.alpha > 1e-3
    disparity = torch.where(seen, render.alpha / render.depth.clamp(min=1e-6), render.alpha)
    disparity = disparity / disparity.amax(dim=(1, 2, 3), keepdim=True)
    expected = 2.0 * variation(render.rgb) + 3.0 * variation(disparity)
    expected = expected + 5.0 * gaussians.params["scales"].exp().mean()
    found = gaussians.regularisation(render, Progress(0, 10), torch.tensor(1.0))
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(torch.isfinite(p.grad).all() for p in gaussians.params.values() if p.grad is not None)


def test_learning_rates_that_fall_over_the_run():
    gaussians = make(lr={"scales": 5e-3}, lr_final={"scales": 1e-3})
    assert gaussians.lr_at("scales", Progress(0, 100)) == pytest.approx(5e-3)
    assert gaussians.lr_at("scales", Progress(50, 100)) == pytest.approx(math.sqrt(5e-6))
    assert gaussians.lr_at("quats", Progress(50, 100)) == 1e-3
    one_step(gaussians, 99, 100)
    rates = {group["name"]: group["lr"] for group in gaussians.optimizers["adam"].param_groups}
    assert rates["scales"] == pytest.approx(1e-3, rel=0.02)


@pytest.mark.parametrize(
    ("name", "n", "stop"), [("gaussians_lucid_dreamer", 5000, 3000), ("gaussians_dreamer_xl", 2500, 1500)]
)
def test_presets_of_ism_and_tsm(name, n, stop):
    """Positions from 1.6e-4 to 1.6e-6 of the extent 3.5, events every 100 steps until `stop`."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        spec = OmegaConf.to_container(
            compose("config", [f"representation={name}"]).representation, resolve=True
        )
    made = check_settings("representation", spec)(
        RandomBall(n=50)(Rng(0).at(-1)), 64, (4, 16, 16), 0, "cpu", **settings_of(spec)
    )
    assert made.lr_at("means", Progress(0, n)) == pytest.approx(3.5 * 1.6e-4)
    assert made.lr_at("means", Progress(n, n)) == pytest.approx(3.5 * 1.6e-6)
    assert made.lr_at("sh0", Progress(n, n)) == pytest.approx(3e-3)
    events = [k for k in range(n) if made.densifier.event(Progress(k, n))]
    assert events == list(range(200, stop, 100))
    assert [k for k in range(n) if made.densifier.resets(Progress(k, n))] == list(range(300, stop, 300))
    one_step(made, 0, n)


def test_learning_rate_of_the_position():
    """GaussianDreamer and TraCe: 1.9230e-4 at step 1700, also when the run is scaled to another length."""
    assert make().means_lr_at(Progress(0, 1700)) == pytest.approx(2e-4)
    assert make().means_lr_at(Progress(1700, 1700)) == pytest.approx(1.9230e-4, rel=1e-4)
    assert make().means_lr_at(Progress(85, 170)) == pytest.approx(make().means_lr_at(Progress(850, 1700)))
    assert make(reference_steps=None).means_lr_at(Progress(30_000, 60_000)) == pytest.approx(1e-4)
    assert make(reference_steps=None).means_lr_at(Progress(50_000, 60_000)) == pytest.approx(1e-4)


def test_every_parameter_trains_with_its_learning_rate():
    gaussians = make(lr={"quats": 0.5})
    before = {name: value.clone() for name, value in gaussians.state_dict()["params"].items()}
    one_step(gaussians, 0, 1700)
    for name, param in gaussians.params.items():
        moved = (param.detach() - before[name]).abs()
        lr = {"means": 2e-4, "quats": 0.5, "scales": 5e-3, "opacities": 0.01, "sh0": 0.0125}[name]
        if name == "quats":  # round at the start: turning changes nothing but rounding
            assert moved.max() <= lr * 1.01
        else:  # Adam's first step is lr wherever there is a gradient
            assert moved.max() == pytest.approx(lr, rel=1e-3)
        assert param.grad is None


def test_the_step_that_densifies_is_no_step_of_the_optimisers():
    """What survives stays as it was, and Adam does not count the step, as in the released code."""
    settings = {"start": 0, "every": 1, "stop": 3, "prune_opacity": 0.0}  # events at 1 and 2
    gaussians = make(reference_steps=None, densify={**settings, "mode": "prune"})
    one_step(gaussians, 0, 9)
    before = gaussians.state_dict()
    for k in (1, 2, 3):
        one_step(gaussians, k, 9)
        equal = [torch.equal(gaussians.params[name], value) for name, value in before["params"].items()]
        state = gaussians.optimizers["adam"].state
        counts = {int(state[param]["step"]) for param in gaussians.params.values()}
        assert (all(equal), counts) == ((True, {1}) if k < 3 else (False, {2}))


def test_the_yaml_says_what_the_constructor_does():
    path = Path(__file__).parents[3] / "conf/representation/gaussians.yaml"
    hyper = yaml.safe_load(path.read_text())
    for key in ("_target_", "display_name", "citation"):
        del hyper[key]
    default, written = make(), make(**hyper)
    for name in (
        "lr",
        "lr_final",
        "losses",
        "losses_mode",
        "means_lr",
        "reference_steps",
        "opacity_from",
        "colors",
    ):
        assert getattr(default, name) == getattr(written, name), name
    assert default.densifier.settings == written.densifier.settings


def test_colours_never_get_stuck_outside():
    x = torch.tensor([-0.5, -0.5, 0.5, 1.5, 1.5], requires_grad=True)
    y = bounded(x)
    assert torch.equal(y.detach(), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    y.backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert torch.equal(x.grad, torch.tensor([0.0, -1.0, 1.0, 1.0, 0.0]))


def test_released_colours_are_clamped_from_below_only():
    """diff-gaussian-rasterization, computeColorFromSH: max(colour, 0), with no gradient below 0."""
    wanted = torch.tensor([[-0.2, 0.1, 0.5], [0.9, 1.7, 0.3]])
    cloud = PointCloud(torch.tensor([[0.0, -0.3, 0.0], [0.0, 0.3, 0.0]]), wanted)
    seen, slopes = {}, {}
    for colors in ("released", "bounded"):
        gaussians = make(cloud, colors=colors, opacity=0.9)
        gaussians.params["scales"].data.fill_(math.log(0.08))
        rgb = gaussians.render(make_cameras(0.0, 0.0, 2.5, 40.0, 48, 48), torch.zeros(3)).rgb
        seen[colors] = rgb.detach().amax(dim=(0, 1, 2))
        rgb.sum().backward()
        slopes[colors] = gaussians.params["sh0"].grad[:, 0]
    assert seen["released"][1] > 1.2
    assert seen["bounded"].max() <= 1.0
    below = wanted < 0.0
    assert torch.equal(slopes["released"] == 0.0, below)
    assert (slopes["bounded"][~below] > 0.0).all()
    with pytest.raises(TraceBenchError, match="colors='clamped' is not one of bounded, released"):
        make(colors="clamped")


def test_resume_is_bit_equal():
    """Six steps, densifying in the second half: uninterrupted, or saved and loaded after the third."""
    densify = {"start": 3, "every": 4, "stop": 6, "threshold": 1e-4, "split_scale": 0.1}  # at step 4
    settings = {"reference_steps": None, "densify": densify}
    straight = make(**settings)
    for k in range(6):
        one_step(straight, k, 6)
    first = make(**settings)
    for k in range(3):
        one_step(first, k, 6)
    assert first.densifier.stats
    second = make(RandomBall(n=7)(Rng(9).at(-1)), **settings)
    torch.rand(5)  # the global generator must not matter
    second.load_state_dict(first.state_dict())
    for k in range(3, 6):
        one_step(second, k, 6)
    assert straight.n_primitives == second.n_primitives != 200
    for name, param in straight.params.items():
        assert torch.equal(param, second.params[name]), name


def test_state_survives_a_safe_torch_file(tmp_path):
    gaussians = make()
    one_step(gaussians, 0, 1700)
    torch.save(gaussians.state_dict(), tmp_path / "state.pt")
    other = make()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    one_step(gaussians, 1, 1700)
    one_step(other, 1, 1700)
    assert all(torch.equal(gaussians.params[name], other.params[name]) for name in gaussians.params)


def test_state_is_a_copy():
    """Training after saving or loading a state does not change the state."""
    first = make()
    one_step(first, 0, 1700)
    state = first.state_dict()
    one_step(first, 1, 1700)
    for _ in range(2):
        second = make()
        second.load_state_dict(state)
        one_step(second, 1, 1700)
        assert all(torch.equal(first.params[name], second.params[name]) for name in first.params)


def test_export(tmp_path):
    gaussians = make()
    one_step(gaussians, 0, 1700)
    ply, safe = gaussians.export(tmp_path)
    assert (ply.name, safe.name) == ("asset.ply", "asset.safetensors")
    tensors = load_file(safe)
    assert all(torch.equal(tensors[name], param) for name, param in gaussians.params.items())
    again = read_splat_ply(ply)
    for name in ("means", "scales", "opacities", "sh0"):
        assert torch.equal(again[name], gaussians.params[name])


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        ({"lr": {"positions": 1.0}}, "representation.lr has no key positions"),
        ({"losses": {"depth": 1.0}}, "representation.losses has no key depth"),
        ({"densify": {"until": 3}}, "representation.densify has no key until"),
        ({"densify": {"mode": "always"}}, "densify.mode='always'"),
        ({"densify": {"threshold": 0.0}}, "densify.threshold must be above 0"),
        ({"densify": {"max_gaussians": 100}}, "more than representation.densify.max_gaussians=100"),
        ({"opacity_from": "colour"}, "opacity_from='colour'"),
        ({"opacity": 1.0}, "opacity must be between"),
        ({"means_lr_final": 0.0}, "must be above 0"),
    ],
)
def test_wrong_settings_are_refused(hyper, words):
    with pytest.raises(TraceBenchError, match=words.replace(".", r"\.")):
        make(**hyper)


def test_gaussians_need_initial_points():
    with pytest.raises(TraceBenchError, match="need initial points"):
        Gaussians(None, 64, (4, 16, 16), 0, "cpu")


def test_fits_a_scene_from_all_sides():
    scene = scene_from_prompt("a red sphere on a blue cube")
    gaussians = make(
        RandomBall(n=800)(Rng(0).at(-1)),
        lr={name: 2 * lr for name, lr in TOY_LR.items()},
        losses={"sparsity": 0.0},
        densify={"mode": "off"},
    )
    views = EvaluationRig(n_views=9, resolution=32).cameras()
    truth = scene.render(views, background=(0.0, 0.0, 0.0)).rgb
    steps = 90
    for k in range(steps):
        i = (4 * k) % 9
        render = gaussians.render(views[i : i + 1], torch.zeros(3))
        ((render.rgb - truth[i : i + 1]) ** 2).sum().backward()
        gaussians.post_backward(render, Progress(k, steps), torch.ones(()))
    between = make_cameras(15.0, torch.arange(5) * 72.0 + 20.0, 2.65, 42.5, 32, 32)  # views it has not seen
    expected = scene.render(between, background=(1.0, 1.0, 1.0))
    with torch.no_grad():
        seen = gaussians.render(between, torch.ones(3), with_normals=True)
    ours, theirs = seen.alpha > 0.5, expected.alpha > 0.5
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.85
    assert ((seen.rgb - expected.rgb) ** 2).mean() < 0.01
    both = (ours & theirs)[..., 0]
    assert (seen.depth - expected.depth)[both].abs().mean() < 0.15
