"""A prior of a few known pictures, for one-second runs: `prior=analytic` with --config-dir tests/conf."""

from __future__ import annotations

import torch

from trace_bench.priors.analytic import AnalyticPrior, Gaussian
from trace_bench.system.errors import TraceBenchError

SIDE = 8
LATENT_SHAPE = (3, SIDE, SIDE)
PROMPTS = (
    "a red cube", "a blue torus", "a green cone on a yellow cube", "a red mushroom", "a duck", "a penguin",
)  # fmt: skip


def make(device: torch.device | str = "cpu", bad_prompt: str | None = None) -> AnalyticPrior:
    """One Gaussian per prompt; the data of `bad_prompt` are NaN, so that its run becomes non-finite."""
    generator = torch.Generator().manual_seed(0)
    size = 3 * SIDE * SIDE
    identity = torch.eye(size, dtype=torch.float64)
    gaussians = {}
    for text in ("", *PROMPTS):
        mean = torch.rand(size, generator=generator, dtype=torch.float64) * 2.0 - 1.0
        gaussians[text] = Gaussian(mean * (torch.nan if text == bad_prompt else 1.0), 0.01 * identity)
    return AnalyticPrior(gaussians, LATENT_SHAPE)


broken_calls = 0


def broken(device: torch.device | str = "cpu", bad_prompt: str | None = None) -> AnalyticPrior:
    """A prior whose weights are missing."""
    global broken_calls  # noqa: PLW0603  counts across runs
    broken_calls += 1
    raise TraceBenchError("The weights are not there.")
