"""TSM: trajectory score matching (Miao et al. 2024, Dreamer XL); designed for SDXL, runs on any prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.inversion import (
    Interval,
    IntervalSchedule,
    ddim_hop,
    ddim_invert,
    level,
    offset_noise,
    timestep,
)
from trace_bench.diffusion.schedules import add_noise
from trace_bench.methods.base import Distilled, Method
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.priors.perp_neg import PerpNegText, guided_eps, guided_items, lucid_dreamer_text
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng


class TSM(Method):
    """g = B lambda w(t) (e_cfg(x_t, t, y) - e(x_mu, mu, "")),  w(t) = s_t / a_t

    Like ISM, but the target is taken at mu = s + (t - s) sqrt(1 - gamma^2), between s and t. x_mu and x_t are
    each one hop from x_s and use the same prediction at x_s.

    Args:
        interval: range of s and t over the run, fields of `inversion.IntervalSchedule`.
        gamma: 0 puts mu at t; 1 puts it at s, which is ISM.
        noise_offset: weight of a per-channel draw added to the noise that the inversion starts from.
        gradient_scale: lambda.
        perp_neg: use Perp-Neg guidance in LucidDreamer's form.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        interval: Mapping[str, float] | None = None,
        gamma: float = 0.3,
        noise_offset: float = 0.1,
        gradient_scale: float = 0.1,
        perp_neg: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.interval = IntervalSchedule.of(interval)
        self.gamma = gamma
        self.noise_offset = noise_offset
        self.gradient_scale = gradient_scale
        self.perp_neg = perp_neg

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """Invert up to s, hop to mu and to t, and take the difference of the predictions at these two."""
        n = latents.shape[0]
        cond: TextEmbedding | PerpNegText = text.interpolated(view)
        if self.perp_neg:
            cond = lucid_dreamer_text(text, view)
        between = self.interval.draw(progress, rng, round_up=self.perp_neg)
        noise = offset_noise(latents.shape, self.noise_offset, rng, latents)
        x_t, eps_mu = self.trajectory(latents, noise, between, text.empty.expand(n))
        eps = guided_eps(
            self.prior, x_t, timestep(between.t, x_t), cond, text.negative.expand(n), self.guidance_scale
        )
        a, s = level(self.prior.alphas_cumprod, between.t)
        return Distilled(n * self.gradient_scale * (s / a) * (eps - eps_mu))

    def trajectory(
        self, z: Tensor, noise: Tensor, between: Interval, empty: TextEmbedding
    ) -> tuple[Tensor, Tensor]:
        """x_t and the prediction at x_mu."""
        abar, grid = self.prior.alphas_cumprod, self.interval.timesteps(between.s)
        mu = between.between(self.gamma)
        x_0 = add_noise(z, noise, *level(abar, grid[0]))
        x_s = ddim_invert(x_0, grid, abar, lambda x, t: self.prior.eps(x, t, empty))
        eps_s = self.prior.eps(x_s, timestep(between.s, x_s), empty)
        at_s = level(abar, between.s)
        x_mu, x_t = (ddim_hop(x_s, eps_s, at_s, level(abar, v)) for v in (mu, between.t))
        return x_t, self.prior.eps(x_mu, timestep(mu, x_mu), empty)

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """Per view: one item per hop up to s, one for s, one for mu, and the guided ones at t."""
        between = self.interval.draw(progress, rng, round_up=self.perp_neg)
        items = len(self.interval.timesteps(between.s)) + 1 + guided_items(self.perp_neg)
        return Work(unet_fwd=items * batch)
