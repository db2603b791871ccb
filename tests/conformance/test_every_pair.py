"""Every method with every representation, fresh and resumed; discovered by their YAML, run in the core."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import pytest
import torch
from configured import CONF, NAMES, composed, configured
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sd_checkpoint import make_checkpoint

from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.methods.base import Method
from trace_bench.priors.base import Work
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.priors.text import embed_prompt
from trace_bench.progress import Progress
from trace_bench.representations.base import Representation
from trace_bench.representations.points import PointCloud
from trace_bench.runs.checkpoint import first_non_finite
from trace_bench.seeding import Rng
from trace_bench.settings.config import build

REPRESENTATIONS = sorted(path.stem for path in (CONF / "representation").glob("*.yaml"))
STEPS, STOP, VIEWS = 3, 1, 2
RANGE = CameraRange(distance=(2.5, 2.8), fovy_deg=(40.0, 45.0), elevation_deg=(-10.0, 60.0))
SMALL: dict[str, dict[str, Any]] = {
    "nerf": {
        "samples_per_ray": 24,
        "hash_grid": {"levels": 2, "log2_size": 8, "base": 4},
        "occupancy": {"resolution": 8},
    }
}
Pair = tuple[Method, Representation]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPrior:
    """SD 2.1's classes and config keys at toy size, a v-prediction model under the adapter."""
    folder = tmp_path_factory.mktemp("sd")
    v = make_checkpoint(folder / "v", "v_prediction", seed=1)
    return StableDiffusionPrior(str(make_checkpoint(folder / "base")), resolution=16, adapter_repo=str(v))


@cache
def settings_of_toy(name: str) -> dict[str, Any]:
    """The representation in the tiny world, smaller still if a step would take seconds."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        spec = compose("config", overrides=[f"representation={name}"]).representation
    small: Any = OmegaConf.to_container(OmegaConf.merge(spec, SMALL.get(name, {})), resolve=True)
    return small


def make(method: str, representation: str, prior: StableDiffusionPrior) -> Pair:
    generator = torch.Generator().manual_seed(0)
    points = PointCloud(torch.rand(40, 3, generator=generator) - 0.5, torch.rand(40, 3, generator=generator))
    spec = settings_of_toy(representation)
    starts = not representation.startswith(("image", "nerf"))
    made = build(
        "representation",
        spec,
        points=points if starts else None,
        resolution=16,
        latent_shape=prior.latent_shape,
        seed=0,
        device="cpu",
    )
    return configured(method, prior, "tiny"), made


def run(prior: StableDiffusionPrior, pair: Pair, **options: Any) -> None:
    text = embed_prompt(prior, "a red cube", pair[0].negative_prompt)
    settings = {"views_per_step": VIEWS, "resolution": 16, "background": "random", "rng": Rng(0)}
    distill(prior, *pair, text, RANGE, steps=STEPS, **settings, **options)


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for value in values for tensor in tensors(value)]


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("method", NAMES)
def test_pair(prior: StableDiffusionPrior, method: str, representation: str) -> None:
    """Counted cost equals declared cost at every step; nothing is NaN; a run that is stopped, saved and
    resumed is bitwise identical to an uninterrupted one; the prior does not change."""
    whole = make(method, representation, prior)
    seen = [prior.counter + Work()]
    run(prior, whole, on_step=lambda k, log: seen.append(prior.counter + Work()))
    is_latent = whole[1].is_latent(settings_of_toy(representation))
    encoder = Work() if is_latent else Work(vae_enc_fwd=VIEWS, vae_enc_bwd=VIEWS)
    for k in range(STEPS):
        declared = whole[0].cost(Progress(k, STEPS), VIEWS, Rng(0).at(k)) + encoder
        assert seen[k + 1] - seen[k] == declared, k
    expected = [state.clone() for part in whole for state in tensors(part.state_dict())]
    assert first_non_finite(whole[1].state_dict(), representation) is None
    assert first_non_finite(whole[0].state_dict(), method) is None

    stopped = make(method, representation, prior)
    asked = iter(range(STEPS + 1))
    run(prior, stopped, should_stop=lambda: next(asked) >= STOP)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in stopped], file)
    file.seek(0)
    resumed = make(method, representation, prior)
    for part, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    run(prior, resumed, start=STOP)
    found = [state for part in resumed for state in tensors(part.state_dict())]
    assert len(found) == len(expected) > 0
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    frozen = [*prior._denoiser.unet.parameters(), *prior._vae.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in frozen)


def test_all_are_there() -> None:
    assert {"gaussians", "image", "nerf"} <= set(REPRESENTATIONS)
    assert len(NAMES) >= 11
    assert all(composed(name, "tiny")["_target_"] for name in NAMES)
