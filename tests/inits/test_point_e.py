"""The Point-E init: a clear error if the package is missing, and the calls to it otherwise."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec
from typing import ClassVar

import numpy as np
import pytest
import torch

from trace_bench.inits.point_e import PointE
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError

RNG = Rng(0).at(-1)
PROMPT = "a red cube"


def test_without_the_package_one_is_told_how_to_get_it():
    with pytest.raises(TraceBenchError, match=r"pip install git\+https://github.com/openai/point-e"):
        PointE()


class Sampler:
    """Replaces the package's sampler: records its arguments and draws from torch's global state."""

    given: ClassVar[dict] = {}

    def __init__(self, **given):
        Sampler.given = given

    def sample_batch(self, batch_size, model_kwargs):
        Sampler.given |= {"batch_size": batch_size, **model_kwargs}
        return torch.rand(batch_size, 6, sum(self.given["num_points"]))

    def output_to_point_clouds(self, output):
        channels = dict(zip("RGB", output[0, 3:].numpy(), strict=True))
        return [types.SimpleNamespace(coords=output[0, :3].T.numpy() - 0.5, channels=channels)]


class Model(torch.nn.Module):
    """A model without weights."""


@pytest.fixture
def package(monkeypatch, tmp_path):
    """The used names of point_e, without a model."""
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path))

    def module(name, **content):
        made = types.ModuleType(name)
        made.__spec__ = ModuleSpec(name, None)
        made.__path__ = []
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)

    for name in ("point_e", "point_e.diffusion", "point_e.models"):
        module(name)
    names = ("base40M-textvec", "upsample")
    module(
        "point_e.diffusion.configs",
        DIFFUSION_CONFIGS=dict.fromkeys(names, "diffusion"),
        diffusion_from_config=lambda config: config,
    )
    module("point_e.diffusion.sampler", PointCloudSampler=Sampler)
    module(
        "point_e.models.configs",
        MODEL_CONFIGS=dict.fromkeys(names),
        model_from_config=lambda config, device: Model(),
    )
    module("point_e.models.download", load_checkpoint=lambda name, device, cache_dir: {})


@pytest.mark.usefixtures("package")
def test_lucid_dreamers_cloud():
    cloud = PointE()(RNG, "cpu", PROMPT)
    assert len(cloud) == 4096 * 20
    given = Sampler.given
    assert (given["num_points"], given["guidance_scale"]) == ([1024, 3072], [3.0, 0.0])
    assert given["model_kwargs_key_filter"] == ("texts", "")
    assert (given["texts"], given["batch_size"]) == ([PROMPT], 1)
    assert (cloud.colors - 0.5).abs().max() <= 0.5 / 255.0


@pytest.mark.usefixtures("package")
def test_each_point_becomes_a_small_ball():
    raw = PointE(copies=1, ball=0.0, mirror_y=False, lift=0.0, colors="model")(RNG, "cpu", PROMPT)
    made = PointE(colors="model")(RNG, "cpu", PROMPT)
    assert (raw.seconds, made.seconds > 0.0) == (0.0, True)  # the same points, from the cache
    centres = raw.positions * torch.tensor([1.0, -1.0, 1.0]) + torch.tensor([0.0, 0.0, 0.15])
    offsets = made.positions.reshape(4096, 20, 3) - centres[:, None]
    assert offsets.norm(dim=-1).max() <= 0.05 + 1e-5
    torch.testing.assert_close(offsets[7], offsets[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(made.colors.reshape(4096, 20, 3)[:, 3], raw.colors)


@pytest.mark.usefixtures("package")
def test_the_run_s_seed_decides_and_torch_s_own_state_stays():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, other = (PointE(copies=1)(Rng(seed).at(-1), "cpu", PROMPT) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first.positions, other.positions)
    assert np.isfinite(first.positions.numpy()).all()


@pytest.mark.usefixtures("package")
def test_wrong_settings():
    for wrong in ({"colors": "warm"}, {"copies": 0}, {"ball": -1.0}):
        with pytest.raises(TraceBenchError, match=next(iter(wrong))):
            PointE(**wrong)
    with pytest.raises(TraceBenchError, match="Point-E has no model 'base2B'"):
        PointE(base="base2B")(RNG, "cpu", PROMPT)
