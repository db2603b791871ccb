"""The interface of a method: a stop-gradient direction on the latents, and its cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.text import PromptText, ViewThresholds, embed_prompt
from trace_bench.progress import Progress
from trace_bench.rewards.base import Reward
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError

Choice = TypeVar("Choice", bound=str)


def check_choice(setting: str, value: Choice, options: Sequence[str]) -> Choice:
    """Return `value` if it is one of `options`; raise otherwise."""
    if value not in options:
        raise TraceBenchError(f"method.{setting}={value!r} is not one of {', '.join(options)}.")
    return value


@dataclass(frozen=True)
class Geometry:
    """What a render shows of the shape, without a graph. For the methods that declare `uses_geometry`."""

    depth: Tensor  # [B, H, W, 1] z-depth in the camera's frame, world units; 0 where empty
    alpha: Tensor  # [B, H, W, 1] in [0, 1]


@dataclass(frozen=True)
class Distilled:
    """Result of one method step. The caller applies it once: dL/dz = grad / B."""

    grad: Tensor  # [B, C, h, w], detached
    log: dict[str, Tensor] = field(default_factory=dict)  # scalars, kept on the device
    target: Tensor | None = None  # [B, C, h, w], clean latents that grad pulls towards, if any
    t: Tensor | None = None  # [B] timestep of each direction, for the log; None if there is none


class Method(ABC):
    """A score-distillation method. Subclasses add their hyper-parameters as keyword arguments.

    Args:
        guidance_scale: s in uncond + s (cond - uncond); None if the method uses no guidance.
        seed: seed of everything the method draws before the first step.
        negative_prompt: text of the unconditional branch.
        prompt_suffixes: texts derived from the prompt, by name: what is added to it before the view phrase;
            None for the empty text. `PromptText.derived` has their embeddings.
        view_thresholds: degrees at which the view phrase changes (`priors.text.ViewThresholds`).
        encode_depth_probability: share of steps that encode the rendered depth, as a grey image, instead of
            the colours (from the released code of ISM and TSM, like the next two).
        flip_probability: share of steps that mirror the images left to right.
        pixel_gradient_limit: each pixel's gradient, between encoder and representation, is scaled so that its
            largest channel is at most this; None for no limit.
    """

    uses_geometry: bool = False  # whether `step` takes the render's `Geometry` as its last argument
    needs_flow: ClassVar[bool] = False  # whether it runs on flow priors only
    reward: Reward | None = None  # what the method maximises beside the prior, if anything

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float | None,
        seed: int = 0,
        negative_prompt: str = "",
        prompt_suffixes: Mapping[str, str | None] | None = None,
        view_thresholds: Mapping[str, float] | None = None,
        encode_depth_probability: float = 0.0,
        flip_probability: float = 0.0,
        pixel_gradient_limit: float | None = None,
    ) -> None:
        self.prior = prior
        self.guidance_scale = guidance_scale
        self.seed = seed
        self.negative_prompt = negative_prompt
        self.prompt_suffixes = dict(prompt_suffixes or {})
        self.view_thresholds = ViewThresholds(**(view_thresholds or {}))
        self.encode_depth_probability = encode_depth_probability
        self.flip_probability = flip_probability
        self.pixel_gradient_limit = pixel_gradient_limit

    def embed(self, prompt: str, view_phrases: bool = True) -> PromptText:
        """The embeddings of all texts that this method uses for `prompt`."""
        return embed_prompt(self.prior, prompt, self.negative_prompt, self.prompt_suffixes, view_phrases)

    def take_step(
        self,
        latents: Tensor,
        text: PromptText,
        view: Cameras,
        progress: Progress,
        rng: StepRng,
        geometry: Geometry,
    ) -> Distilled:
        """`step`; a method that declares `uses_geometry` gets `geometry` as the last argument."""
        if not self.uses_geometry:
            return self.step(latents, text, view, progress, rng)
        if self.flip_probability > 0.0:
            raise TraceBenchError(
                "method.flip_probability must be 0 for a method that uses the geometry of the render, "
                "which is not mirrored."
            )
        return self.step(latents, text, view, progress, rng, geometry)  # type: ignore[call-arg]

    @abstractmethod
    def step(
        self,
        latents: Tensor,  # [B, C, h, w], detached
        text: PromptText,
        view: Cameras,
        progress: Progress,
        rng: StepRng,
    ) -> Distilled:
        """The direction for these latents at this step; may also train the method's own networks."""

    @abstractmethod
    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """The exact UNet and decoder work of `step` for `batch` views at this step."""

    def state_dict(self) -> dict[str, Any]:
        """All state that changes during training; empty by default."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, the checkpoint has {sorted(state)}")
