"""The coarse guess of a toy scene: roughly the scene, visibly not the scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trace_bench.inits.toy_coarse import ToyCoarse
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld import scene_from_prompt

RNG = Rng(0).at(-1)


@pytest.mark.parametrize("prompt", ["a red cube", "a blue chair"])
def test_it_is_near_the_scene_and_covers_it(prompt):
    cloud = ToyCoarse()(RNG, "cpu", prompt)
    scene = scene_from_prompt(prompt)
    assert 50 < len(cloud) <= 600
    outside = scene.distance(cloud.positions.numpy())
    assert np.quantile(outside, 0.99) < 0.12  # a voxel is 0.106
    surface, colors, _ = scene.surface_points(2000)
    nearest = torch.cdist(surface, cloud.positions).min(dim=-1)
    assert nearest.values.quantile(0.9) < 0.25
    assert (cloud.colors[nearest.indices] - colors).abs().mean() < 0.25


def test_it_is_not_the_scene():
    """Points are off the surface and colours are few and wrong, so there is something to refine."""
    cloud = ToyCoarse()(RNG, "cpu", "a red cube")
    off = np.abs(scene_from_prompt("a red cube").distance(cloud.positions.numpy()))
    assert off.mean() > 0.05
    assert set(np.round(cloud.colors.unique().tolist(), 3)) <= {0.0, 0.333, 0.667, 1.0}
    assert len(cloud.colors.unique(dim=0)) > 3


def test_the_run_s_seed_decides():
    init = ToyCoarse()
    first, again, other = (init(Rng(seed).at(-1), "cpu", "a duck") for seed in (0, 0, 1))
    assert torch.equal(first.positions, again.positions)
    assert torch.equal(first.colors, again.colors)
    assert first.positions.shape != other.positions.shape or not torch.equal(first.positions, other.positions)


def test_settings():
    assert len(ToyCoarse(n=30)(RNG, "cpu", "a red cube")) == 30
    fine = ToyCoarse(noise=0.0, blur=0.0, color_noise=0.0, threshold=0.5, resolution=24, n=100_000)
    inside = scene_from_prompt("a red cube").distance(fine(RNG, "cpu", "a red cube").positions.numpy())
    assert inside.max() < 0.07  # half a voxel's diagonal
    for wrong in ({"resolution": 2}, {"n": 0}, {"color_levels": 1}, {"noise": -0.1}):
        with pytest.raises(TraceBenchError, match=next(iter(wrong))):
            ToyCoarse(**wrong)


def test_prompts_outside_the_toy_world_are_refused():
    with pytest.raises(TraceBenchError, match="The toy world does not know 'corgi'"):
        ToyCoarse()(RNG, "cpu", "a corgi")
