"""SDS-Bridge (McAllister et al. 2024, "Rethinking score distillation as a bridge between image
distributions")."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.schedules import add_noise, alpha_sigma
from trace_bench.methods.base import Distilled, check_choice
from trace_bench.methods.random_timestep import RandomTimestep
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError


class SDSBridge(RandomTimestep):
    """g = s_t^2 (e_cfg(x_t, t, target) - eps), then bridge_scale w (e(x_t, t, target) - e(x_t, t, source))

    The first stage is SDS. The second goes from the distribution of the renders to that of the prompt:
    `source` is the prompt with words for what the renders look like now, `target` the prompt with words for
    what they should look like; both are texts of `prompt_suffixes`.

    Args:
        switch: share of the run after which the second stage begins.
        bridge_scale: factor of the second stage.
        bridge_weighting: w = s_t^2 (`sds`) or 1 (`one`).
        min_step_percent, max_step_percent, t_schedule: range of t (`timesteps.TimestepSchedule`).
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        switch: float = 0.5,
        bridge_scale: float = 40.0,
        bridge_weighting: Literal["sds", "one"] = "sds",
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        if missing := {"source", "target"} - set(self.prompt_suffixes):
            raise TraceBenchError(f"method.prompt_suffixes has no {' and no '.join(sorted(missing))}.")
        self.switch = switch
        self.bridge_scale = bridge_scale
        self.bridge_weighting = check_choice("bridge_weighting", bridge_weighting, ("sds", "one"))

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """Two UNet items per view in both stages."""
        n = latents.shape[0]
        t = self.draw_t(n, progress, rng, latents.device)
        a, s = alpha_sigma(self.prior.alphas_cumprod, t)
        eps = rng.randn("eps", latents.shape, latents.device, latents.dtype)
        x_t = add_noise(latents, eps, a, s)
        target = text.view_dependent(view, self.view_thresholds, "target")
        if progress.fraction < self.switch:
            guided, _, _ = self.prior.eps_cfg(x_t, t, target, text.negative.expand(n), self.guidance_scale)
            return Distilled(s**2 * (guided - eps), t=t)
        source = text.view_dependent(view, self.view_thresholds, "source")
        both = self.prior.eps(torch.cat([x_t, x_t]), torch.cat([t, t]), TextEmbedding.cat([target, source]))
        eps_target, eps_source = both.chunk(2)
        weight = s**2 if self.bridge_weighting == "sds" else 1.0
        return Distilled(self.bridge_scale * weight * (eps_target - eps_source), t=t)

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """Two forward items per view."""
        return Work(unet_fwd=2 * batch)
