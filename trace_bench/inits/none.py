"""No start: for a representation that begins from something of its own, such as a canvas of noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng


class NoStart:
    """Gives no points."""

    gives_points: ClassVar[bool] = False

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = "") -> None:
        return None
