"""What a method is to the core: a stop-gradient direction on the latents, and its price."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.text import PromptText, ViewThresholds
from trace_bench.schedules import Progress
from trace_bench.seeding import StepRng


@dataclass(frozen=True)
class Distilled:
    """A method's answer: dL/dz = grad / B, applied once by the core."""

    grad: Tensor  # [B, C, h, w], detached
    log: dict[str, Tensor] = field(default_factory=dict)  # scalars, left on the device


class Method(ABC):
    """A score-distillation method. Subclasses add their hyper-parameters as keyword arguments."""

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float | None,
        seed: int = 0,
        negative_prompt: str = "",
        view_thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.prior = prior
        self.guidance_scale = guidance_scale
        self.seed = seed
        self.negative_prompt = negative_prompt
        self.view_thresholds = ViewThresholds(**(view_thresholds or {}))

    @abstractmethod
    def step(
        self,
        latents: Tensor,  # [B, C, h, w], detached
        text: PromptText,
        view: Cameras,
        progress: Progress,
        rng: StepRng,
    ) -> Distilled:
        """The direction for these latents at this step; may train what the method owns."""

    @abstractmethod
    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """The UNet and decoder work that `step` does for `batch` views at this step, exactly."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that moves; nothing by default."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, the checkpoint has {sorted(state)}")
