"""CDS: consistency distillation sampling (Wu et al. 2024, Consistent3D)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.inversion import ddim_hop
from trace_bench.diffusion.schedules import add_noise, alpha_sigma, clamp_gradient
from trace_bench.methods.base import Distilled, Method, check_choice
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress, scheduled, sqrt_ramp
from trace_bench.seeding import Rng, StepRng


class CDS(Method):
    """g = w (e_cfg(x_t, t, y) - e_cfg(x_u, u, y)) with u < t

    x_t = a_t z + s_t n with one noise n, shared by all views and kept for the whole run. x_u is one step from
    x_t down the probability-flow ODE. With D(x, t) = (x - s_t e) / a_t, the estimate of the clean latents,
    e_t - e_u = (a_u / s_u) (D(x_u, u) - D(x_t, t)): the difference of two estimates on one ODE path.

    Args:
        guidance_scale: s. If it equals the first value of `guidance_schedule`, s follows that schedule; any
            other value stays constant.
        guidance_schedule: schedule of s over the run; None keeps `guidance_scale`.
        u_range: first and last u; u falls with the square root of the run's progress.
        u_limits: smallest and largest u.
        gap: t - u is uniform in [gap[0], gap[1]).
        t_limit: largest t.
        weighting: w = 1 (`one`) or s_t^2 (`sds`).
        grad_clamp: element-wise limit of g, a constant or a schedule over the run; None for no limit.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        guidance_schedule: Sequence[float] | None = None,
        u_range: Sequence[float] = (700, 100),
        u_limits: Sequence[int] = (100, 880),
        gap: Sequence[int] = (100, 300),
        t_limit: int = 980,
        weighting: Literal["one", "sds"] = "one",
        grad_clamp: float | Sequence[float] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance: float | Sequence[float] = guidance_scale
        if guidance_schedule is not None and guidance_schedule[1] == guidance_scale:
            self.guidance = guidance_schedule
        self.u_range, self.u_limits, self.gap, self.t_limit = u_range, u_limits, gap, t_limit
        self.weighting = check_choice("weighting", weighting, ("one", "sds"))
        self.grad_clamp = grad_clamp
        shape = (1, *prior.latent_shape)
        self.noise = Rng(self.seed).at(-1).randn("cds_noise", shape, prior.device, prior.alphas_cumprod.dtype)

    def timesteps(self, n: int, progress: Progress, rng: StepRng, device: Any) -> tuple[Tensor, Tensor]:
        """u, shared by the batch, and t, one per sample: each int64 [n]."""
        low, high = self.u_limits
        u = min(max(int(sqrt_ramp(self.u_range[0], self.u_range[1], progress.fraction)), low), high)
        t = (u + rng.randint("gap", self.gap[0], self.gap[1], n, device)).clamp(max=self.t_limit)
        return torch.full((n,), u, device=device), t

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """Two guided predictions per view, one ODE step apart."""
        n = latents.shape[0]
        u, t = self.timesteps(n, progress, rng, latents.device)
        at_u, at_t = (alpha_sigma(self.prior.alphas_cumprod, each) for each in (u, t))
        texts = text.view_dependent(view, self.view_thresholds), text.negative.expand(n)
        scale = scheduled(self.guidance, progress.fraction)

        x_t = add_noise(latents, self.noise.expand_as(latents), *at_t)
        eps_t, _, _ = self.prior.eps_cfg(x_t, t, *texts, scale)
        x_u = ddim_hop(x_t, eps_t, at_t, at_u)
        eps_u, _, _ = self.prior.eps_cfg(x_u, u, *texts, scale)
        weight = at_t[1] ** 2 if self.weighting == "sds" else 1.0
        return Distilled(clamp_gradient(weight * (eps_t - eps_u), self.grad_clamp, progress.fraction), t=t)

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """Two guided pairs per view."""
        return Work(unet_fwd=4 * batch)
