"""ISM: interval score matching (Liang et al. 2023, LucidDreamer, eq. 17 and algorithm 1)."""

from __future__ import annotations

from abc import abstractmethod
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
from trace_bench.priors.perp_neg import guided_eps, guided_items, lucid_dreamer_text
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng


class IntervalMatching(Method):
    """g = B lambda w(t) (e_cfg(x_t, t, y) - target),  w(t) = s_t / a_t

    x_s and x_t lie on one DDIM inversion of z under the empty prompt, without guidance. Subclasses choose
    the target. The released losses sum over the batch, those of other methods average: hence the factor B.

    Args:
        interval: range of s and t over the run, fields of `inversion.IntervalSchedule`.
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
        noise_offset: float = 0.1,
        gradient_scale: float = 0.1,
        perp_neg: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.interval = IntervalSchedule.of(interval)
        self.noise_offset = noise_offset
        self.gradient_scale = gradient_scale
        self.perp_neg = perp_neg

    @abstractmethod
    def trajectory(
        self, z: Tensor, noise: Tensor, between: Interval, empty: TextEmbedding
    ) -> tuple[Tensor, Tensor]:
        """x_t and the target, each [B, C, h, w]."""

    @abstractmethod
    def trajectory_items(self, between: Interval) -> int:
        """UNet items a view that `trajectory` costs."""

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """The guided prediction at x_t, less the target."""
        n = latents.shape[0]
        cond = lucid_dreamer_text(text, view) if self.perp_neg else text.interpolated(view)
        between = self.interval.draw(progress, rng, round_up=self.perp_neg)
        noise = offset_noise(latents.shape, self.noise_offset, rng, latents)
        x_t, target = self.trajectory(latents, noise, between, text.empty.expand(n))
        eps = guided_eps(
            self.prior, x_t, timestep(between.t, x_t), cond, text.negative.expand(n), self.guidance_scale
        )
        a, s = level(self.prior.alphas_cumprod, between.t)
        return Distilled(n * self.gradient_scale * (s / a) * (eps - target), t=timestep(between.t, x_t))

    def invert(
        self, z: Tensor, noise: Tensor, between: Interval, empty: TextEmbedding
    ) -> tuple[Tensor, Tensor]:
        """x_s by DDIM inversion, and the prediction there."""
        abar, grid = self.prior.alphas_cumprod, self.interval.timesteps(between.s)
        x_0 = add_noise(z, noise, *level(abar, grid[0]))
        x_s = ddim_invert(x_0, grid, abar, lambda x, t: self.prior.eps(x, t, empty))
        return x_s, self.prior.eps(x_s, timestep(between.s, x_s), empty)

    def invert_items(self, between: Interval) -> int:
        """UNet items a view that `invert` costs: one a hop, and one at s."""
        return len(self.interval.timesteps(between.s))

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """The trajectory's items, and the guided ones at t."""
        between = self.interval.draw(progress, rng, round_up=self.perp_neg)
        return Work(unet_fwd=(self.trajectory_items(between) + guided_items(self.perp_neg)) * batch)


class ISM(IntervalMatching):
    """target = e(x_s, s, ""), the prediction that carries x_s to x_t.

    Args:
        plain_sds: the released code's SDS baseline: x_t is noised in one step and the target is that noise.
    """

    def __init__(self, prior: Prior, *, plain_sds: bool = False, **common: Any) -> None:
        super().__init__(prior, **common)
        self.plain_sds = plain_sds

    def trajectory(
        self, z: Tensor, noise: Tensor, between: Interval, empty: TextEmbedding
    ) -> tuple[Tensor, Tensor]:
        """x_t and the prediction at x_s that leads to it."""
        abar = self.prior.alphas_cumprod
        if self.plain_sds:
            return add_noise(z, noise, *level(abar, between.t)), noise
        x_s, eps_s = self.invert(z, noise, between, empty)
        return ddim_hop(x_s, eps_s, level(abar, between.s), level(abar, between.t)), eps_s

    def trajectory_items(self, between: Interval) -> int:
        """None for plain SDS, else those of the inversion."""
        return 0 if self.plain_sds else self.invert_items(between)
