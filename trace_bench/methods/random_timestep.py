"""The settings that SDS and its relatives share: a range from which each step draws its t."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trace_bench.diffusion.timesteps import KINDS, Kind, TimestepSchedule
from trace_bench.methods.base import Method, check_choice
from trace_bench.priors.base import Prior
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng


class RandomTimestep(Method):
    """A method whose steps draw t from a range that may change over the run.

    Args:
        min_step_percent, max_step_percent, t_schedule: range of t (`timesteps.TimestepSchedule`).
    """

    def __init__(
        self,
        prior: Prior,
        *,
        min_step_percent: float | Sequence[float] = 0.02,
        max_step_percent: float | Sequence[float] = 0.98,
        t_schedule: Kind = "uniform",
        **common: Any,
    ) -> None:
        super().__init__(prior, **common)
        kind = check_choice("t_schedule", t_schedule, KINDS)
        self.t_range = TimestepSchedule(min_step_percent, max_step_percent, kind)

    def draw_t(
        self, n: int, progress: Progress, rng: StepRng, device: torch.device | str | None = None
    ) -> Tensor:
        """One t per sample, drawn uniformly or from the falling schedule: int64 [n]."""
        return self.t_range.draw(n, len(self.prior.alphas_cumprod), progress, rng, device)
