"""The init without points, for a representation that needs none, such as a canvas of noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng


class NoInit:
    """Provides no points."""

    gives_points: ClassVar[bool] = False

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = "") -> None:
        return None
