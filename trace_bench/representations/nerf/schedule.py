"""Schedules over a run: levels of the hash grid and resolution of the renders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.cameras import Cameras


@dataclass(frozen=True)
class LevelSchedule:
    """Coarse to fine (threestudio's progressive band hash grid): `start` levels, then one more at every
    `every` after `begin`, both shares of the run. start null: all levels from the beginning."""

    start: int | None = None
    begin: float = 0.0
    every: float = 0.05

    def __post_init__(self) -> None:
        if (self.start is not None and self.start < 1) or self.begin < 0 or self.every <= 0:
            raise TraceBenchError(
                "representation.levels needs start of at least 1 or null, begin of at least 0 and every "
                f"above 0, but has {vars(self)}."
            )

    def active(self, fraction: float, levels: int) -> int:
        """Number of levels in use at this fraction of the run."""
        if self.start is None:
            return levels
        more = math.floor(max(fraction - self.begin, 0.0) / self.every + 1e-9)
        return min(levels, self.start + more)


class ResolutionSchedule:
    """Render side in training: pairs (share of the run from which it applies, pixels), the first from 0."""

    def __init__(self, pairs: Sequence[Sequence[float]] | None) -> None:
        self.pairs = [(float(begin), int(pixels)) for begin, pixels in pairs or ()]
        begins = [begin for begin, _ in self.pairs]
        if self.pairs and (begins[0] != 0.0 or begins != sorted(begins) or min(p for _, p in self.pairs) < 8):
            raise TraceBenchError(
                "representation.resolution_schedule must be sorted pairs [share of the run, pixels >= 8] "
                f"that start at share 0, but is {self.pairs}."
            )

    def cameras(self, cameras: Cameras, fraction: float) -> Cameras:
        """The same views at the scheduled size, if that is smaller than theirs."""
        due = [pixels for begin, pixels in self.pairs if begin <= fraction]
        if not due or due[-1] >= cameras.height:
            return cameras
        factor = due[-1] / cameras.height
        width = max(1, round(cameras.width * factor))
        rows = cameras.Ks.unbind(1)
        scaled = [row * scale for row, scale in zip(rows, (width / cameras.width, factor, 1.0), strict=True)]
        return replace(cameras, width=width, height=due[-1], Ks=torch.stack(scaled, dim=1))
