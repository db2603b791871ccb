"""Every method with every representation, fresh and resumed; discovered by their YAML, run in the core."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import pytest
import torch
from configured import CONF, NAMES, composed, configured
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sd_checkpoint import make_checkpoint

from trace_bench.methods.base import Method
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.representations.base import Representation
from trace_bench.representations.points import PointCloud
from trace_bench.runs.check import CHECKS, Subject
from trace_bench.settings.config import build

REPRESENTATIONS = sorted(path.stem for path in (CONF / "representation").glob("*.yaml"))
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


#: The other pairs are slow tests.
QUICK = set(itertools.product(("sds", "vsd", "trace", "sdi"), ("gaussians", "image", "nerf")))
PAIRS = [
    pytest.param(*pair, marks=[pytest.mark.slow] * (pair not in QUICK))
    for pair in itertools.product(NAMES, REPRESENTATIONS)
]


@pytest.mark.parametrize(("method", "representation"), PAIRS)
def test_pair(prior: StableDiffusionPrior, method: str, representation: str) -> None:
    subject = Subject(
        lambda: make(method, representation, prior), prior, settings_of_toy(representation), "a red cube", 16
    )
    for check in CHECKS:
        result = check(subject)
        assert result.ok, f"{check.name}: {result.reason}"
        if check.name == "log and target":
            assert result.reason.endswith(", t"), "the report draws the timesteps of every method of ours"


def test_all_are_there() -> None:
    assert {"gaussians", "image", "nerf"} <= set(REPRESENTATIONS)
    assert len(NAMES) >= 11
    assert all(composed(name, "tiny")["_target_"] for name in NAMES)
