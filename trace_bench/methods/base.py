"""What a method is to the core: a stop-gradient direction on the latents, and its price."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.text import PromptText, ViewThresholds
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError

Choice = TypeVar("Choice", bound=str)


def check_choice(setting: str, value: Choice, options: Sequence[str]) -> Choice:
    """`value`, which must be one of `options`."""
    if value not in options:
        raise TraceBenchError(f"method.{setting}={value!r} is not one of {', '.join(options)}.")
    return value


@dataclass(frozen=True)
class Distilled:
    """A method's answer: dL/dz = grad / B, applied once by the core."""

    grad: Tensor  # [B, C, h, w], detached
    log: dict[str, Tensor] = field(default_factory=dict)  # scalars, left on the device
    target: Tensor | None = None  # [B, C, h, w], clean latents that grad pulls towards, if any


class Method(ABC):
    """A score-distillation method. Subclasses add their hyper-parameters as keyword arguments.

    Args:
        guidance_scale: s in uncond + s (cond - uncond); None where the method has no such thing.
        seed: of what the method draws before the first step.
        negative_prompt: text of the unconditional branch.
        view_thresholds: degrees at which the view phrase changes (`priors.text.ViewThresholds`).
        encode_depth_probability: share of the steps in which the core encodes the render's depth, as a grey
            picture, in place of its colours (a habit of ISM's and TSM's released code, as the next two).
        flip_probability: share of the steps in which the core mirrors the pictures left to right.
        pixel_gradient_limit: what the core scales each pixel's gradient down to, by its largest channel, on
            its way from the encoder into the representation; None for no limit.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float | None,
        seed: int = 0,
        negative_prompt: str = "",
        view_thresholds: Mapping[str, float] | None = None,
        encode_depth_probability: float = 0.0,
        flip_probability: float = 0.0,
        pixel_gradient_limit: float | None = None,
    ) -> None:
        self.prior = prior
        self.guidance_scale = guidance_scale
        self.seed = seed
        self.negative_prompt = negative_prompt
        self.view_thresholds = ViewThresholds(**(view_thresholds or {}))
        self.encode_depth_probability = encode_depth_probability
        self.flip_probability = flip_probability
        self.pixel_gradient_limit = pixel_gradient_limit

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
