"""RFDS: rectified-flow distillation sampling (Yang et al. 2025, "Text-to-Image Rectified Flow as
Plug-and-Play Priors")."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.flow import add_flow_noise, flow_to_x0
from trace_bench.methods.base import Distilled, Method
from trace_bench.priors.base import Prior, TextEmbedding, Work, classifier_free_guidance, flow_prior
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError


class RFDS(Method):
    """g = v_cfg(x_sigma, sigma, y) - (eps - z) with x_sigma = (1 - sigma) z + sigma eps

    SDS in the form of a flow: g = (e_cfg - eps) / (1 - sigma) = (z - x0hat) / sigma.

    Args:
        min_sigma, max_sigma: ends of the range of noise levels; a step draws one of the model's own levels
            between those nearest to them, each as likely.
    """

    needs_flow: ClassVar[bool] = True

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        min_sigma: float = 3 / 52,
        max_sigma: float = 7 / 8,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.flow = flow_prior(prior, type(self).__name__)
        if not 0.0 < min_sigma <= max_sigma < 1.0:
            raise TraceBenchError(
                f"method.min_sigma={min_sigma} and method.max_sigma={max_sigma} must be "
                "0 < min_sigma <= max_sigma < 1."
            )
        self.low, self.high = (int((self.flow.sigmas - end).abs().argmin()) for end in (min_sigma, max_sigma))

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """Two network items per view."""
        n = latents.shape[0]
        index = rng.randint("t", self.low, self.high + 1, n, latents.device)
        sigma = self.flow.sigmas[index].to(latents).view(-1, 1, 1, 1)
        cond = text.view_dependent(view, self.view_thresholds)
        noise = rng.randn("eps", latents.shape, latents.device, latents.dtype)
        eps = self.noise_at(latents, noise, sigma, cond)
        x = add_flow_noise(latents, eps, sigma)
        texts = TextEmbedding.cat([cond, text.negative.expand(n)])
        pair = self.flow.velocity(torch.cat([x, x]), torch.cat([sigma, sigma]).flatten(), texts)
        v_cond, v_uncond = pair.chunk(2)
        v = classifier_free_guidance(v_cond, v_uncond, self.guidance_scale)
        return Distilled(v - (eps - latents), target=flow_to_x0(x, v, sigma), t=1000.0 * sigma.flatten())

    def noise_at(self, latents: Tensor, noise: Tensor, sigma: Tensor, cond: TextEmbedding) -> Tensor:
        """The noise that the latents get: the fresh draw `noise` [B, C, h, w]. sigma: [B, 1, 1, 1]."""
        return noise

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """Two forward items per view."""
        return Work(unet_fwd=2 * batch)
