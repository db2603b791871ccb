"""Which values of 3D Gaussians are refused, and which ranges of published files pass."""

from __future__ import annotations

import math

import pytest
import torch

from trace_bench.representations.points import PointCloud
from trace_bench.representations.splat_values import splat_problem
from trace_bench.system.errors import TraceBenchError


def splats(n=40):
    generator = torch.Generator().manual_seed(0)
    return {
        "means": torch.rand(n, 3, generator=generator) - 0.5,
        "quats": torch.randn(n, 4, generator=generator),
        "scales": torch.full((n, 3), -3.0),
        "opacities": torch.zeros(n),
        "sh0": torch.zeros(n, 1, 3),
    }


def changed(name, index, value):
    params = splats()
    params[name][index] = value
    return params


BAD = [
    ("opacities", 3, math.nan, "opacity is NaN in 1 of 40 rows"),
    ("opacities", slice(0, 5), math.inf, "opacity is infinite in 5 of 40 rows"),
    ("scales", (7, 1), math.nan, "scale_1 is NaN in 1 of 40 rows"),
    ("scales", (slice(0, 2), 2), -math.inf, "scale_2 is infinite in 2 of 40 rows"),
    ("scales", (0, 0), 100.0, r"scale_0 is too large \(above 7\.\d+\) in 1 of 40 rows"),
    ("scales", (0, 0), 9.0, "scale_0 is too large"),
    ("quats", 4, 0.0, "rot_0, rot_1, rot_2, rot_3 are all 0 in 1 of 40 rows"),
    ("quats", (4, 2), math.nan, "rot_2 is NaN in 1 of 40 rows"),
    ("quats", (4, 2), 1e30, "rot_2 is too large in 1 of 40 rows"),
    ("means", (0, 1), math.nan, "y is NaN in 1 of 40 rows"),
    ("means", (0, 1), 1e30, "y is too large in 1 of 40 rows"),
    ("sh0", (1, 0, 2), -math.inf, "f_dc_2 is infinite in 1 of 40 rows"),
]


@pytest.mark.parametrize(("name", "index", "value", "word"), BAD)
def test_a_bad_row_is_named(name, index, value, word):
    params = changed(name, index, value)
    found = splat_problem(params)
    assert found is not None
    with pytest.raises(ValueError, match=f"^{word}"):
        raise ValueError(found)
    positions = splats()["means"]
    with pytest.raises(TraceBenchError, match=f"The init's 3D Gaussians cannot be used: {word}"):
        PointCloud(positions, torch.zeros_like(positions), splats=params)


def test_several_problems_are_one_sentence():
    params = changed("opacities", 3, math.nan)
    params["quats"][0] = 0.0
    assert splat_problem(params) == (
        "opacity is NaN in 1 of 40 rows; rot_0, rot_1, rot_2, rot_3 are all 0 in 1 of 40 rows"
    )


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("opacities", slice(None), 18.0),  # sigmoid is 1 in float32
        ("opacities", 0, -100.0),
        ("scales", (slice(None), 2), math.log(1e-10)),  # flat Gaussians
        ("scales", 0, 3.0),  # a background sphere around an object
        ("sh0", 0, 30.0),
        ("quats", slice(None), 100.0),  # not normalised, as 3DGS stores them
        ("quats", 0, torch.tensor([1e-4, 0.0, 0.0, 0.0])),
        ("means", 0, 1e4),  # a floater
    ],
)
def test_what_published_tools_write_passes(name, index, value):
    assert splat_problem(changed(name, index, value)) is None


def test_the_limit_of_the_scale_grows_with_the_cloud():
    large = splats()
    large["means"] *= 1e6
    large["scales"] += math.log(1e6)
    assert splat_problem(large) is None
    one = {name: value[:1] for name, value in splats().items()}
    assert splat_problem(one) is None
