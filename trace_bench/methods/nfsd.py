"""NFSD: noise-free score distillation (Katzir et al. 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.schedules import add_noise, alpha_sigma
from trace_bench.methods.base import Distilled
from trace_bench.methods.random_timestep import RandomTimestep
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng
from trace_bench.system.transfer import send


class NFSD(RandomTimestep):
    """g = w(t) (s (e(x_t, t, y) - e(x_t, t, "")) + d) with w(t) = s_t^2

    d = e(x_t, t, "") - e(x_t, t, negative) for t >= negative_from, and e(x_t, t, "") below, where the
    prediction holds little noise. The empty text is the unconditional branch; the negative prompt is in d
    alone.

    Args:
        negative_from: lowest timestep at which d uses the negative prompt.
        min_step_percent, max_step_percent, t_schedule: range of t (`timesteps.TimestepSchedule`).
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        negative_from: int = 200,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.negative_from = negative_from

    def timesteps(self, n: int, progress: Progress, rng: StepRng) -> tuple[Tensor, Tensor]:
        """One t per sample, int64 [n], and the rows with t >= negative_from; both on the CPU."""
        t = self.draw_t(n, progress, rng)
        return t, (t >= self.negative_from).nonzero()[:, 0]

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """One call: prompt and empty text for all views, the negative prompt for those that need it."""
        n = latents.shape[0]
        t, noisy = self.timesteps(n, progress, rng)
        t, noisy = send([t, noisy], latents.device)
        a, s = alpha_sigma(self.prior.alphas_cumprod, t)
        x_t = add_noise(latents, rng.randn("eps", latents.shape, latents.device, latents.dtype), a, s)
        texts = [
            text.view_dependent(view, self.view_thresholds),
            text.empty.expand(n),
            text.negative.expand(len(noisy)),
        ]
        eps = self.prior.eps(
            torch.cat([x_t, x_t, x_t[noisy]]), torch.cat([t, t, t[noisy]]), TextEmbedding.cat(texts)
        )
        eps_cond, eps_empty, eps_negative = eps.split([n, n, len(noisy)])
        denoising = eps_empty.index_add(0, noisy, eps_negative, alpha=-1)
        return Distilled(s**2 * (self.guidance_scale * (eps_cond - eps_empty) + denoising), t=t)

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """Two items per view, three where t >= negative_from."""
        return Work(unet_fwd=2 * batch + len(self.timesteps(batch, progress, rng)[1]))
