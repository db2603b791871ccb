"""What holds of every representation in conf/representation: found by its YAML."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from test_every_pair import REPRESENTATIONS, settings_of_toy

from trace_bench.representations.check import CHECKS, Subject
from trace_bench.representations.points import PointCloud
from trace_bench.settings.config import build, settings_of
from trace_bench.system.checks import Check
from trace_bench.system.targets import locate


@cache
def subject_of(name: str) -> Subject:
    spec: Any = settings_of_toy(name)
    generator = torch.Generator().manual_seed(0)
    points = PointCloud(torch.rand(40, 3, generator=generator) - 0.5, torch.rand(40, 3, generator=generator))
    given = {"resolution": 16, "latent_shape": (4, 8, 8), "seed": 0, "device": "cpu"}
    cls: Any = locate("representation", spec)
    return Subject(
        lambda start: build("representation", spec, points=start, **given),
        cls, points, settings_of(spec), (4, 8, 8), 16,
    )  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_every_representation_passes_every_check(name: str, check: Check[Subject]) -> None:
    result = check(subject_of(name))
    assert result.ok, result.reason
