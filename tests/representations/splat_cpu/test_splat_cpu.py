"""The CPU rasteriser: values, gradients, and gsplat's conventions."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from splat_reference import rasterize_naively, scene, views

from trace_bench.representations.splat_cpu import rasterization
from trace_bench.system.errors import TraceBenchError

WIDTH, HEIGHT = 21, 18  # neither square nor a multiple of a band


def render(parts, cameras, **options):
    return rasterization(**parts, **cameras, **options)


def with_grad(parts):
    return {name: value.clone().requires_grad_() for name, value in parts.items()}


def loss_of(image, alpha, seed=3):
    """A loss with a different weight for every value."""
    rng = torch.Generator().manual_seed(seed)
    weights = [torch.randn(x.shape, generator=rng, dtype=torch.float64).to(x.dtype) for x in (image, alpha)]
    return (image * weights[0]).sum() + (alpha * weights[1]).sum()


@pytest.mark.parametrize("crowd", ["sparse", "opaque"])
def test_equals_the_naive_reference(crowd):
    parts = scene(40) if crowd == "sparse" else scene(120, scale=0.4)
    if crowd == "opaque":  # pixels fill up, alphas reach their ceiling
        parts["opacities"] = torch.cat([torch.full((60,), 1.0), torch.full((60,), 0.9)]).double()
    cameras = views(2, WIDTH, HEIGHT)
    backgrounds = torch.rand(2, 3, dtype=torch.float64)
    ours, theirs = with_grad(parts), with_grad(parts)
    behind, behind_too = backgrounds.clone().requires_grad_(), backgrounds.clone().requires_grad_()
    image, alpha, _ = render(ours, cameras, backgrounds=behind, render_mode="RGB+D")
    expected, expected_alpha = rasterize_naively(**theirs, **cameras, backgrounds=behind_too)
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(alpha, expected_alpha, rtol=0, atol=1e-10)
    if crowd == "opaque":
        assert alpha.max() > 0.999
    loss_of(image, alpha).backward()
    loss_of(expected, expected_alpha).backward()
    for name in parts:
        torch.testing.assert_close(ours[name].grad, theirs[name].grad, rtol=1e-9, atol=1e-9, msg=name)
    torch.testing.assert_close(behind.grad, behind_too.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors", "backgrounds"])
@pytest.mark.parametrize("mode", ["RGB", "RGB+ED"])
def test_gradients_agree_with_finite_differences(name, mode):
    parts = scene(12, seed=5, scale=0.25)
    parts["means"][0] = torch.tensor([0.0, 1.6, 0.0])  # far enough to the side that the Jacobian is clamped
    parts["scales"][0] = 0.5
    parts["backgrounds"] = torch.rand(2, 3, dtype=torch.float64)
    cameras = views(2, WIDTH, HEIGHT)

    def loss(value):
        image, alpha, _ = render({**parts, name: value}, cameras, render_mode=mode)
        return loss_of(image, alpha)

    value = parts[name].clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(value), value)
    rng = torch.Generator().manual_seed(0)
    checked = 0
    for index in torch.randperm(value.numel(), generator=rng)[:24].tolist():
        estimates = []
        for h in (1e-6, 3e-7):  # across alpha = 1/255 the loss jumps: a derivative is where both agree
            step = torch.zeros(value.numel(), dtype=value.dtype)
            step[index] = h
            step = step.view_as(value)
            estimates.append(((loss(value.detach() + step) - loss(value.detach() - step)) / (2 * h)).item())
        if abs(estimates[0] - estimates[1]) < 1e-4 * (1 + abs(estimates[0])):
            checked += 1
            assert grad.flatten()[index].item() == pytest.approx(estimates[1], rel=1e-4, abs=1e-4)
    assert checked >= min(value.numel(), 24) * 0.7


def test_projection_is_that_of_gsplats_torch_twin():
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    parts = scene(200, seed=1)
    parts["opacities"][:] = 1.0  # the twin's radii know nothing of opacity: at 1 both reach alpha = 1/255
    parts["means"][:20] *= 3.0  # some behind the camera, some off the screen
    cameras = views(3, WIDTH, HEIGHT)
    covars, _ = _quat_scale_to_covar_preci(parts["quats"], parts["scales"], True, False, triu=False)
    radii, means2d, depths, conics, _ = _fully_fused_projection(
        parts["means"], covars, cameras["viewmats"], cameras["Ks"], WIDTH, HEIGHT
    )
    _, _, info = render(parts, cameras, packed=False)
    seen = (info["radii"] > 0).all(dim=-1)
    assert 0 < int((~seen).sum()) < seen.numel() / 2
    assert torch.equal(seen, (radii > 0).all(dim=-1))
    assert (info["radii"] - radii)[seen].abs().max() <= 1
    for name, expected in {"means2d": means2d, "depths": depths, "conics": conics}.items():
        torch.testing.assert_close(info[name][seen], expected[seen], rtol=1e-10, atol=1e-10)


def test_info_has_gsplats_entries():
    parts, cameras = scene(30), views(2, WIDTH, HEIGHT)
    parts["opacities"][3] = 1 / 256  # fainter than 1/255: never drawn
    _, _, info = render(parts, cameras, packed=False)
    shapes = {"means2d": (2,), "radii": (2,), "depths": (), "conics": (3,), "opacities": ()}
    assert {name: tuple(info[name].shape[2:]) for name in shapes} == shapes
    assert all(info[name].shape[:2] == (2, 30) for name in shapes)
    assert (info["width"], info["height"], info["n_cameras"]) == (WIDTH, HEIGHT, 2)
    assert info["radii"].dtype == torch.int32
    assert (info["radii"][:, 3] == 0).all()
    assert info["gaussian_ids"] is None


def test_packed_equals_unpacked():
    parts, cameras = scene(60), views(3, WIDTH, HEIGHT)
    parts["means"][:20] *= 3.0
    grads, images, infos = [], [], []
    for packed in (True, False):
        ours = with_grad(parts)
        image, alpha, info = render(ours, cameras, packed=packed, render_mode="RGB+ED")
        loss_of(image, alpha).backward()
        images.append(image)
        infos.append(info)
        grads.append({name: value.grad for name, value in ours.items()})
    assert torch.equal(images[0], images[1])
    for name in parts:
        torch.testing.assert_close(grads[0][name], grads[1][name], rtol=1e-12, atol=1e-12)
    seen = (infos[1]["radii"] > 0).all(dim=-1)
    assert torch.equal(infos[0]["camera_ids"], torch.where(seen)[0])
    assert torch.equal(infos[0]["gaussian_ids"], torch.where(seen)[1])
    assert torch.equal(infos[0]["means2d"], infos[1]["means2d"][seen])


def test_a_batch_of_cameras_equals_single_cameras():
    parts, cameras = scene(50), views(3, WIDTH, HEIGHT)
    per_camera = torch.rand(3, 50, 5, dtype=torch.float64)  # colours per camera, 5 channels
    backgrounds = torch.rand(3, 5, dtype=torch.float64)
    together, alphas, _ = render({**parts, "colors": per_camera}, cameras, backgrounds=backgrounds)
    for c in range(3):
        one = {**cameras, "viewmats": cameras["viewmats"][c : c + 1], "Ks": cameras["Ks"][c : c + 1]}
        alone, alpha, _ = render({**parts, "colors": per_camera[c]}, one, backgrounds=backgrounds[c : c + 1])
        assert torch.equal(together[c], alone[0])
        assert torch.equal(alphas[c], alpha[0])


def test_the_order_of_the_gaussians_does_not_matter():
    parts, cameras = scene(80), views(2, WIDTH, HEIGHT)
    shuffle = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    first, _, _ = render(parts, cameras)
    second, _, _ = render({name: value[shuffle] for name, value in parts.items()}, cameras)
    assert torch.equal(first, second)


def test_render_modes_and_background():
    parts, cameras = scene(30, scale=0.06), views(2, WIDTH, HEIGHT)
    backgrounds = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.2]], dtype=torch.float64)
    black, alpha, _ = render(parts, cameras)
    coloured, _, _ = render(parts, cameras, backgrounds=backgrounds)
    torch.testing.assert_close(coloured, black + (1 - alpha) * backgrounds[:, None, None], rtol=0, atol=1e-12)
    empty = (alpha == 0)[..., 0]
    assert empty.any()
    assert torch.equal(coloured[0][empty[0]], backgrounds[0].expand(int(empty[0].sum()), 3))
    accumulated, _, _ = render(parts, cameras, render_mode="D", backgrounds=backgrounds)
    expected, _, _ = render(parts, cameras, render_mode="ED")
    both, _, _ = render(parts, cameras, render_mode="RGB+ED", backgrounds=backgrounds)
    assert accumulated.shape[-1] == expected.shape[-1] == 1
    torch.testing.assert_close(expected * alpha, accumulated, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both, torch.cat([coloured, expected], dim=-1), rtol=1e-12, atol=1e-12)
    near, far = 2.6 - 0.9, 2.6 + 0.9  # the ball's, seen from the cameras
    assert ((expected[alpha > 0] > near) & (expected[alpha > 0] < far)).all()
    assert (expected[alpha == 0] == 0).all()


def test_float32_is_float64_rounded():
    parts, cameras = scene(60), views(2, WIDTH, HEIGHT)
    wide, _, _ = render(parts, cameras)
    narrow, _, info = render({k: v.float() for k, v in parts.items()}, views(2, WIDTH, HEIGHT, torch.float32))
    assert narrow.dtype == info["means2d"].dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=0, atol=5e-3)  # one at alpha = 1/255 may fall out
    assert (narrow.double() - wide).abs().mean() < 1e-5


def test_the_same_bits_for_any_number_of_threads():
    parts, cameras = scene(300, dtype=torch.float32), views(2, 64, 48, torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            ours = with_grad(parts)
            image, alpha, _ = render(ours, cameras)
            loss_of(image, alpha).backward()
            results.append([image.detach(), *(value.grad for value in ours.values())])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_means2d_retains_its_gradient_and_absgrad():
    parts, cameras = with_grad(scene(40)), views(2, WIDTH, HEIGHT)
    image, alpha, info = render(parts, cameras, packed=False, absgrad=True)
    info["means2d"].retain_grad()
    loss_of(image, alpha).backward()
    grad, absolute = info["means2d"].grad, info["means2d"].absgrad
    assert grad.shape == absolute.shape == (2, 40, 2)
    assert (absolute >= grad.abs() - 1e-12).all()
    assert (absolute > grad.abs() + 1e-6).any()
    assert (grad[(info["radii"] == 0).any(dim=-1)] == 0).all()


def test_nothing_to_see():
    parts, cameras = with_grad(scene(5)), views(1, WIDTH, HEIGHT)
    away = {**parts, "means": parts["means"] + 100.0}
    for packed in (True, False):
        backgrounds = torch.full((1, 3), 0.25, dtype=torch.float64)
        image, alpha, _ = render(away, cameras, backgrounds=backgrounds, packed=packed)
        assert (image == 0.25).all()
        assert (alpha == 0).all()
        image.sum().backward()
        assert (parts["colors"].grad == 0).all()


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_shows(name, value):
    """One bad Gaussian must neither go unnoticed (the run would continue) nor cause out-of-bounds access."""
    parts, cameras = scene(20, dtype=torch.float32), views(1, WIDTH, HEIGHT, torch.float32)
    parts[name][3] = value
    ours = with_grad(parts)
    image, _, _ = render(ours, cameras)
    assert image.isnan().all()
    image.sum().backward()


def test_values_beyond_all_measure_do_no_harm():
    parts, cameras = scene(20, dtype=torch.float32), views(1, WIDTH, HEIGHT, torch.float32)
    parts["scales"][0] = 1e12
    parts["scales"][1, 0] = 1e18
    parts["means"][2] = 1e18
    parts["quats"][3] = 1e-18
    ours = with_grad(parts)
    image, alpha, info = render(ours, cameras, packed=False)
    assert image.isfinite().all()
    assert alpha.min() > 0  # the huge ones cover everything
    assert info["radii"].min() >= 0


def test_near_far_and_radius_clip():
    parts, cameras = scene(50), views(1, WIDTH, HEIGHT)
    _, _, info = render(parts, cameras, packed=False)
    depths, radii = info["depths"], info["radii"]
    middle = depths.median().item()
    for options, kept in (
        ({"near_plane": middle}, depths >= middle),
        ({"far_plane": middle}, depths <= middle),
        ({"radius_clip": 4.0}, (radii > 4).any(dim=-1)),
    ):
        _, _, clipped = render(parts, cameras, packed=False, **options)
        seen = (radii > 0).all(dim=-1)
        assert torch.equal((clipped["radii"] > 0).all(dim=-1), seen & kept)
        assert (seen & kept).any()
        assert (seen & ~kept).any()


@pytest.mark.parametrize(
    "options",
    [
        {"sh_degree": 3}, {"rasterize_mode": "antialiased"}, {"camera_model": "ortho"},
        {"distributed": True}, {"with_ut": True}, {"covars": torch.zeros(5, 3, 3)}, {"sparse_grad": True},
        {"render_mode": "normals"}, {"nonsense": 1}, {"backgrounds": torch.zeros(3)},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_what_is_not_supported_is_refused(options):
    with pytest.raises(TraceBenchError, match=next(iter(options))):
        render(scene(5), views(1, WIDTH, HEIGHT), **options)


def test_bad_inputs_are_refused():
    parts, cameras = scene(5), views(1, WIDTH, HEIGHT)
    with pytest.raises(TraceBenchError, match="quats of shape"):
        render({**parts, "quats": parts["scales"]}, cameras)
    with pytest.raises(TraceBenchError, match="float16"):
        render({**parts, "means": parts["means"].half()}, cameras)
    with pytest.raises(TraceBenchError, match="cameras"):
        render(parts, {**cameras, "viewmats": cameras["viewmats"].requires_grad_()})


def load_kernel(folder):
    """A kernel in a separate module, imported anew as in another process."""
    source = folder / "fresh.py"
    if not source.exists():
        source.write_text(
            "from trace_bench.representations.splat_cpu.jit import kernel\n\n\n"
            "@kernel\ndef plus_one(x):\n    return x + 1\n"
        )
    spec = importlib.util.spec_from_file_location("fresh", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.plus_one


@pytest.mark.parametrize("place", ["beside the code", "the user's cache folder", "nowhere"])
def test_kernels_are_compiled_once_wherever_a_folder_can_be_written(place, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    package = tmp_path / "package"
    package.mkdir()
    if place != "beside the code":
        (package / "__pycache__").write_text("a file, so that nothing can be written into this folder")
    if place == "nowhere":
        cache.write_text("here neither")
    hits = []
    for _ in range(2):
        function = load_kernel(package)
        assert function(1) == 2
        hits.append(sum(function.stats.cache_hits.values()))
    assert hits == ([0, 0] if place == "nowhere" else [0, 1])
    if place == "the user's cache folder":
        assert list(cache.rglob("*.nbi"))


@pytest.mark.gpu
def test_equals_gsplat_on_cuda():
    from gsplat import rasterization as gsplat_rasterization

    parts = scene(500, scale=0.05, dtype=torch.float32)
    cameras = views(2, 64, 48, torch.float32)
    backgrounds = torch.rand(2, 3)
    images, grads = [], []
    for device, function in (("cpu", rasterization), ("cuda", gsplat_rasterization)):
        there = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in cameras.items()}
        ours = {name: value.to(device, copy=True).requires_grad_() for name, value in parts.items()}
        image, alpha, info = function(
            **ours, **there, backgrounds=backgrounds.to(device), render_mode="RGB+ED", packed=False
        )
        info["means2d"].retain_grad()
        loss_of(image.cpu(), alpha.cpu()).backward()
        images.append(torch.cat([image, alpha], dim=-1).detach().cpu())
        grads.append({**{k: v.grad.cpu() for k, v in ours.items()}, "means2d": info["means2d"].grad.cpu()})
    assert (images[0] - images[1]).abs().mean() < 1e-4
    for name in grads[0]:
        error = (grads[0][name] - grads[1][name]).norm() / grads[1][name].norm()
        assert error < 2e-2, (name, error)
