"""The t of each step: drawn at random, or falling over the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trace_bench.progress import Progress, scheduled, sqrt_ramp
from trace_bench.seeding import StepRng

Kind = Literal["uniform", "sqrt"]
KINDS = ("uniform", "sqrt")


@dataclass(frozen=True)
class TimestepSchedule:
    """t in a range that may change over the run.

    low, high: ends of the range as shares of the schedule, both included; constants, or schedules over the
        run (`progress.scheduled`).
    kind: `uniform` draws one t per sample; `sqrt` uses one t for all samples that falls over the run from the
        upper to the lower end of the range, fast at first (HiFA, Zhu and Zhuang 2024).
    """

    low: float | Sequence[float]
    high: float | Sequence[float]
    kind: str = "uniform"

    def draw(
        self, n: int, total: int, progress: Progress, rng: StepRng, device: torch.device | str | None = None
    ) -> Tensor:
        """Timesteps in a schedule of length `total`: int64 [n]."""
        if self.kind == "sqrt":
            highest, lowest = scheduled(self.high, 0.0), scheduled(self.low, 1.0)
            return torch.full((n,), int(total * sqrt_ramp(highest, lowest, progress.fraction)), device=device)
        low = int(total * scheduled(self.low, progress.fraction))
        high = int(total * scheduled(self.high, progress.fraction))
        return rng.randint("t", low, high + 1, n, device)
