"""Snapshots of steps: their contents, and that they do not change the run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sd_checkpoint import make_checkpoint

from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.methods.sds import SDS
from trace_bench.methods.trace import TraCe
from trace_bench.priors.base import Work
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.priors.text import embed_prompt
from trace_bench.representations.gaussians.gaussians import Gaussians
from trace_bench.representations.image import Image
from trace_bench.representations.points import PointCloud
from trace_bench.runs.snapshots import Snapshots, make_snapshots
from trace_bench.seeding import Rng
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.errors import TraceBenchError

RANGE = CameraRange(distance=(2.5, 2.8), fovy_deg=(40.0, 45.0), elevation_deg=(-10.0, 60.0))


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    v = make_checkpoint(folder / "v", "v_prediction", seed=1)
    return StableDiffusionPrior(str(make_checkpoint(folder / "base")), resolution=16, adapter_repo=str(v))


def canvas_of(name, prior):
    generator = torch.Generator().manual_seed(0)
    points = PointCloud(torch.rand(40, 3, generator=generator) - 0.5, torch.rand(40, 3, generator=generator))
    if name == "gaussians":
        return Gaussians(points, 24, prior.latent_shape, 0, "cpu")
    return Image(None, 24, prior.latent_shape, 0, "cpu", mode="latent")


def run(prior, canvas, observe=lambda seen: None, steps=3):
    """Three steps of TraCe; the canvas's values and the work at the end."""
    before = prior.counter + Work()
    method = TraCe(prior, guidance_scale=5.0)
    settings = {"views_per_step": 2, "resolution": 24, "background": "random", "rng": Rng(0)}
    distill(
        prior,
        method,
        canvas,
        embed_prompt(prior, "a red cube"),
        RANGE,
        steps=steps,
        observe=observe,
        **settings,
    )
    params = canvas.params.values() if isinstance(canvas, Gaussians) else [canvas.canvas]
    return [value.detach().clone() for value in params], prior.counter - before


def snapshots(prior, folder, steps=(0, 2, 99)):
    sds = SDS(prior, guidance_scale=4.0)
    return Snapshots(folder, list(steps), prior, {"sds": (sds, embed_prompt(prior, "a red cube"))})


@pytest.mark.parametrize("name", ["gaussians", "image"])
def test_looking_changes_neither_asset_nor_cost(name, prior, tmp_path):
    plain, work = run(prior, canvas_of(name, prior))
    seen, counted = run(prior, canvas_of(name, prior), snapshots(prior, tmp_path))
    assert counted == work
    assert work.vae_dec == 0
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))


def test_what_a_snapshot_holds(prior, tmp_path):
    kept = snapshots(prior, tmp_path)
    run(prior, canvas_of("gaussians", prior), kept)
    assert kept.files() == ["snapshots/00000.npz", "snapshots/00002.npz"]  # there is no step 99
    arrays = dict(np.load(tmp_path / "snapshots" / "00002.npz"))
    pictures, latents = (2, 24, 24, 3), (2, *prior.latent_shape)
    assert {name: array.shape for name, array in arrays.items()} == {
        "rgb": pictures, "plain": pictures, "target": (2, 16, 16, 3), "gradient": pictures,
        "latent_gradient": latents,
        "target_sds": (2, 16, 16, 3), "gradient_sds": pictures, "latent_gradient_sds": latents,
        "azimuth_deg": (2,), "elevation_deg": (2,),
    }  # fmt: skip
    assert arrays["rgb"].dtype == arrays["target"].dtype == np.uint8
    assert all(np.isfinite(array).all() and array.any() for array in arrays.values())


def test_the_gradients_are_those_of_the_step(prior, tmp_path):
    """Pixel gradients are latent gradients through the encoder; SDS uses the run's own draws."""
    found = []

    def look(seen):
        encoding = seen.encoding
        noise = seen.rng.randn("posterior", encoding.latents.shape, prior.device)
        latents = prior.encode(encoding.picture, noise)
        assert torch.equal(latents, encoding.latents)
        (gradient,) = torch.autograd.grad(
            latents, seen.render.rgb, seen.distilled.grad / 2, retain_graph=True
        )
        text = embed_prompt(prior, "a red cube")
        sds = SDS(prior, guidance_scale=4.0).step(
            encoding.latents.detach(), text, seen.view, seen.progress, seen.rng
        )
        found.append((seen.distilled.grad / 2, gradient, sds.grad / 2))
        kept(seen)

    kept = snapshots(prior, tmp_path, steps=[0])
    run(prior, canvas_of("gaussians", prior), look, steps=1)
    arrays = np.load(tmp_path / "snapshots" / "00000.npz")
    for name, value in zip(("latent_gradient", "gradient", "latent_gradient_sds"), found[0], strict=True):
        np.testing.assert_allclose(arrays[name], value.numpy(), rtol=1e-5, atol=1e-9)


def test_a_canvas_of_latents_has_no_pixels_to_differentiate(prior, tmp_path):
    run(prior, canvas_of("image", prior), snapshots(prior, tmp_path))
    arrays = np.load(tmp_path / "snapshots" / "00000.npz")
    assert {"rgb", "target", "latent_gradient", "latent_gradient_sds"} <= set(arrays)
    assert not {"gradient", "gradient_sds"} & set(arrays)


def planned(*overrides):
    (found,) = make_plan(["experiment=gradients", "prior=tiny", "prompt=2", *overrides], multirun=False)
    return found


def test_a_run_without_snapshots_does_not_stand_for_one_with_them():
    plain = planned("snapshots.steps=[]", "~method@snapshots.against.sds")
    (other,) = make_plan(["prompt_set=paper", "prior=tiny", "prompt=2", "background=white"], multirun=False)
    assert plain.fingerprint == other.fingerprint != planned().fingerprint
    assert planned("snapshots.steps=[1]").fingerprint != planned().fingerprint
    assert planned("snapshots.against.sds.guidance_scale=9").fingerprint != planned().fingerprint
    assert planned().asset == planned("snapshots.steps=[1]").asset == plain.asset == plain.fingerprint


def test_mistakes(prior):
    with pytest.raises(TraceBenchError, match="must be a list of steps, 0 being the first"):
        planned("snapshots.steps=[-1]")
    made = planned().job
    trains = dataclasses.replace(made, snapshots={"steps": [0], "against": {"trace": made.method}})
    with pytest.raises(TraceBenchError, match=r"snapshots\.against\.trace trains its own network"):
        make_snapshots(trains, prior, "a red cube", Path())
    wrong = dataclasses.replace(made, snapshots={"steps": [0], "against": {}, "every": 3})
    with pytest.raises(TraceBenchError, match=r"snapshots\.every is not a setting"):
        make_snapshots(wrong, prior, "a red cube", Path())
