"""SDS: score distillation sampling (Poole et al. 2022, DreamFusion, eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.schedules import add_noise, alpha_sigma, clamp_gradient, eps_to_x0
from trace_bench.methods.base import Distilled
from trace_bench.methods.random_timestep import RandomTimestep
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng


class SDS(RandomTimestep):
    """g = w(t) (e_cfg(x_t, t, y) - eps) with x_t = a_t z + s_t eps and w(t) = s_t^2.

    Args:
        min_step_percent, max_step_percent, t_schedule: range of t (`timesteps.TimestepSchedule`).
        grad_clamp: element-wise limit of g, a constant or a schedule over the run; None for no limit.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        grad_clamp: float | Sequence[float] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.grad_clamp = grad_clamp

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """Two UNet items per view."""
        n = latents.shape[0]
        t = self.draw_t(n, progress, rng, latents.device)
        a, s = alpha_sigma(self.prior.alphas_cumprod, t)
        eps = rng.randn("eps", latents.shape, latents.device, latents.dtype)
        x_t = add_noise(latents, eps, a, s)
        cond = text.view_dependent(view, self.view_thresholds)
        eps_cfg, _, _ = self.prior.eps_cfg(x_t, t, cond, text.negative.expand(n), self.guidance_scale)
        grad = clamp_gradient(s**2 * (eps_cfg - eps), self.grad_clamp, progress.fraction)
        return Distilled(grad, target=eps_to_x0(x_t, eps_cfg, a, s), t=t)

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """Two forward items per view."""
        return Work(unet_fwd=2 * batch)
