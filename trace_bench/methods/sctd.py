"""SCTD: segmented consistency trajectory distillation (Zhu et al. 2025, SegmentDreamer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.inversion import ddim_hop, level, offset_noise, timestep
from trace_bench.diffusion.schedules import add_noise
from trace_bench.methods.base import Distilled, Method
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import Rng, StepRng

FIRST, LAST = 20, 980  # ends of the segments, timesteps of 1000


@dataclass(frozen=True)
class Segment:
    """Timesteps e < s < t: the lower edge of a segment, and two points above it."""

    e: int
    s: int
    t: int
    is_two_hops: bool  # whether x_t is reached from x_e through s


class SCTD(Method):
    """g = B lambda r_t ((x_e' - x_e) + (s + 1) (x_e - x_e'')),  r_t = s_t / a_t

    x_e is z noised to the lower edge of a segment of the schedule, and x_t lies above it on the unguided ODE
    under the empty text. The guided prediction at x_t leads back to e in one hop (x_e''), or to s and then,
    under the empty text, to e (x_e'). The noise is the same in all steps and views.

    Args:
        segments: number of equal segments between timesteps 20 and 980.
        warmup: share of the run in which t falls from [500, 980) to [20, 500).
        min_gap: smallest t - e.
        margin: smallest s - e and t - s.
        two_hops_from: lowest t at which x_t is reached through s.
        noise_offset: weight of a per-channel draw added to the noise.
        gradient_scale: lambda.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        segments: int = 5,
        warmup: float = 0.3,
        min_gap: int = 80,
        margin: int = 10,
        two_hops_from: int = 150,
        noise_offset: float = 0.1,
        gradient_scale: float = 0.1,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.edges = [round(FIRST + (LAST - FIRST) * i / segments) for i in range(segments)]
        self.warmup = warmup
        self.min_gap, self.margin, self.two_hops_from = min_gap, margin, two_hops_from
        self.gradient_scale = gradient_scale
        shape = (1, *prior.latent_shape)
        like = prior.alphas_cumprod.to(prior.device)
        self.noise = offset_noise(shape, noise_offset, Rng(self.seed).at(-1), like)

    def draw(self, progress: Progress, rng: StepRng) -> Segment:
        """One segment and its points for the whole batch; steps count from 1, as in LucidDreamer."""
        rate = max(0.0, 1.0 - (progress.k + 1) / (self.warmup * progress.n)) if self.warmup else 0.0
        raised = int(480 * rate)
        t = 1 + int(rng.randint("t", 20 + raised, 500 + raised, 1))
        e = max(edge for edge in self.edges if edge <= t)
        t = max(t, e + self.min_gap)
        s = int(rng.randint("s", e + self.margin, t - self.margin, 1))
        return Segment(e, s, t, t >= self.two_hops_from)

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """Up to t without guidance, and back to e on two ways."""
        n = latents.shape[0]
        drawn = self.draw(progress, rng)
        empty = text.empty.expand(n)
        at_e, at_s, at_t = (level(self.prior.alphas_cumprod, each) for each in (drawn.e, drawn.s, drawn.t))

        x_e = add_noise(latents, self.noise.expand_as(latents), *at_e)
        eps_e = self.eps(x_e, drawn.e, empty)
        if drawn.is_two_hops:
            x_s = ddim_hop(x_e, eps_e, at_e, at_s)
            x_t = ddim_hop(x_s, self.eps(x_s, drawn.s, empty), at_s, at_t)
        else:
            x_t = ddim_hop(x_e, eps_e, at_e, at_t)

        texts = text.interpolated(view), text.negative.expand(n)
        eps_t, _, _ = self.prior.eps_cfg(x_t, timestep(drawn.t, x_t), *texts, self.guidance_scale)
        x_s = ddim_hop(x_t, eps_t, at_t, at_s)
        through_s = ddim_hop(x_s, self.eps(x_s, drawn.s, empty), at_s, at_e)
        direct = ddim_hop(x_t, eps_t, at_t, at_e)

        difference = (through_s - x_e) + (self.guidance_scale + 1.0) * (x_e - direct)
        a, s = at_t
        return Distilled(n * self.gradient_scale * (s / a) * difference, t=timestep(drawn.t, x_t))

    def eps(self, x: Tensor, t: int, text: TextEmbedding) -> Tensor:
        """The prediction at one timestep for all samples."""
        return self.prior.eps(x, timestep(t, x), text)

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """A guided pair and two unguided items per view, three where x_t is reached in two hops."""
        return Work(unet_fwd=(4 + self.draw(progress, rng).is_two_hops) * batch)
