"""ISM: interval score matching (Liang et al. 2023, LucidDreamer, eq. 17 and algorithm 1)."""

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


class ISM(Method):
    """g = B lambda w(t) (e_cfg(x_t, t, y) - e(x_s, s, "")),  w(t) = s_t / a_t

    x_s and x_t lie on one DDIM inversion of z under the empty prompt, without guidance; e(x_s, s, "") is the
    prediction that takes x_s to x_t. The released loss sums over the batch where the other methods average,
    hence the factor B.

    Args:
        interval: range of s and t over the run, fields of `inversion.IntervalSchedule`.
        noise_offset: weight of a per-channel draw added to the noise that the inversion starts from.
        gradient_scale: lambda.
        plain_sds: the released code's SDS baseline: x_t is noised in one step and the target is that noise.
        perp_neg: use Perp-Neg guidance in LucidDreamer's form.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        interval: Mapping[str, float] | None = None,
        noise_offset: float = 0.1,
        gradient_scale: float = 0.1,
        plain_sds: bool = False,
        perp_neg: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.interval = IntervalSchedule.of(interval)
        self.noise_offset = noise_offset
        self.gradient_scale = gradient_scale
        self.plain_sds = plain_sds
        self.perp_neg = perp_neg

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """Invert up to s, hop to t, and take the difference of the two predictions."""
        n = latents.shape[0]
        cond: TextEmbedding | PerpNegText = text.interpolated(view)
        if self.perp_neg:
            cond = lucid_dreamer_text(text, view)
        between = self.interval.draw(progress, rng, round_up=self.perp_neg)
        noise = offset_noise(latents.shape, self.noise_offset, rng, latents)
        a, s = level(self.prior.alphas_cumprod, between.t)
        if self.plain_sds:
            x_t, target = add_noise(latents, noise, a, s), noise
        else:
            x_t, target = self.trajectory(latents, noise, between, text.empty.expand(n))
        eps = guided_eps(
            self.prior, x_t, timestep(between.t, x_t), cond, text.negative.expand(n), self.guidance_scale
        )
        return Distilled(n * self.gradient_scale * (s / a) * (eps - target))

    def trajectory(
        self, z: Tensor, noise: Tensor, between: Interval, empty: TextEmbedding
    ) -> tuple[Tensor, Tensor]:
        """x_t and the prediction at x_s that leads to it."""
        abar, grid = self.prior.alphas_cumprod, self.interval.timesteps(between.s)
        x_0 = add_noise(z, noise, *level(abar, grid[0]))
        x_s = ddim_invert(x_0, grid, abar, lambda x, t: self.prior.eps(x, t, empty))
        eps_s = self.prior.eps(x_s, timestep(between.s, x_s), empty)
        return ddim_hop(x_s, eps_s, level(abar, between.s), level(abar, between.t)), eps_s

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """Per view: one item per hop up to s, one for the prediction at s, and the guided ones at t."""
        guided = guided_items(self.perp_neg)
        if self.plain_sds:
            return Work(unet_fwd=guided * batch)
        between = self.interval.draw(progress, rng, round_up=self.perp_neg)
        return Work(unet_fwd=(len(self.interval.timesteps(between.s)) + guided) * batch)
