"""The flat canvas in its two modes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from safetensors.torch import load_file

from trace_bench.cameras import make_cameras
from trace_bench.progress import Progress
from trace_bench.representations.image import Image, lr_factor
from trace_bench.system.errors import TraceBenchError

CAMERAS = make_cameras(15.0, torch.arange(3) * 90.0, 2.65, 42.5, 32, 32)
BLACK = torch.zeros(3)


def make(mode="latent", seed=0, **hyper):
    return Image(None, 32, (4, 8, 8), seed, "cpu", mode=mode, **hyper)


def step(image, k, n, towards=0.3):
    render = image.render(CAMERAS, BLACK)
    image.pre_backward(render)
    canvas = render.latents if render.rgb is None else render.rgb
    loss = ((canvas - towards) ** 2).sum() / len(CAMERAS)
    loss = loss + image.regularisation(render, Progress(k, n), torch.ones(()))
    loss.backward()
    image.post_backward(render, Progress(k, n), torch.ones(()))
    return loss.item()


def test_latent_canvas():
    image = make(mode="latent")
    render = image.render(CAMERAS, BLACK)
    assert render.rgb is None
    assert render.latents.shape == (3, 4, 8, 8)
    assert torch.equal(render.latents[0], render.latents[2])
    assert render.alpha.shape == render.depth.shape == (3, 8, 8, 1)
    assert image.n_primitives == 64
    many = torch.stack([make(seed=s).canvas for s in range(40)])
    many = many.detach()
    assert many.mean().abs() < 0.05
    assert many.std() == pytest.approx(1.0, abs=0.05)


def test_rgb_canvas():
    image = make(mode="rgb")
    render = image.render(CAMERAS, BLACK, with_normals=True)
    assert render.latents is None
    assert render.rgb.shape == render.normal.shape == (3, 32, 32, 3)
    render.rgb = render.rgb.detach()
    assert 0.0 <= render.rgb.min() < 0.1
    assert 0.9 < render.rgb.max() <= 1.0
    assert render.rgb.mean() == pytest.approx(0.5, abs=0.05)
    assert image.n_primitives == 32 * 32
    assert image.views_matter is False


def test_the_seed_decides():
    assert torch.equal(make(seed=1).canvas, make(seed=1).canvas)
    assert not torch.equal(make(seed=1).canvas, make(seed=2).canvas)


def test_schedule_is_that_of_the_playground():
    """Warm-up over 100 of 1000 steps, then the cosine of a run of 1500."""
    assert lr_factor(Progress(49, 1000), 0.1) == pytest.approx(0.5)
    assert lr_factor(Progress(99, 1000), 0.1) == pytest.approx(1.0)
    assert lr_factor(Progress(100, 1000), 0.1) == pytest.approx(1.0)
    assert lr_factor(Progress(999, 1000), 0.1) == pytest.approx(0.5 * (1 + math.cos(math.pi * 899 / 1400)))
    assert lr_factor(Progress(500, 1000), 0.1) == pytest.approx(lr_factor(Progress(50, 100), 0.1))
    assert lr_factor(Progress(0, 3), 0.1) == 1.0
    assert 0.0 < lr_factor(Progress(0, 3), 0.0) <= 1.0


@pytest.mark.parametrize("mode", ["latent", "rgb"])
def test_it_learns_and_resumes_bit_equal(mode):
    straight = make(mode)
    losses = [step(straight, k, 60) for k in range(60)]
    assert losses[-1] < 0.02 * losses[0]
    first, second = make(mode), make(mode, seed=5)
    for k in range(30):
        step(first, k, 60)
    state = first.state_dict()
    step(first, 30, 60)  # what trains on leaves the state alone
    second.load_state_dict(state)
    for k in range(30, 60):
        step(second, k, 60)
    assert torch.equal(straight.canvas, second.canvas)


def test_export(tmp_path):
    latent = make("latent")
    assert [path.name for path in latent.export(tmp_path / "a")] == ["asset.safetensors"]
    assert torch.equal(load_file(tmp_path / "a" / "asset.safetensors")["latents"], latent.canvas)
    rgb = make("rgb")
    assert [path.name for path in rgb.export(tmp_path / "b")] == ["asset.safetensors", "asset.png"]
    picture = np.asarray(Picture.open(tmp_path / "b" / "asset.png"))
    assert np.abs(picture / 255.0 - rgb.canvas.detach().numpy()).max() < 0.5 / 255 + 1e-6


@pytest.mark.parametrize("hyper", [{"mode": "pixels"}, {"lr": 0.0}, {"warmup": 1.0}])
def test_wrong_settings_are_refused(hyper):
    with pytest.raises(TraceBenchError, match=next(iter(hyper))):
        make(**hyper)
