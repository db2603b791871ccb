"""BSD: balanced score distillation (Huang et al. 2024, PlacidDreamer)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.inversion import IntervalSchedule, level, offset_noise, timestep
from trace_bench.diffusion.schedules import add_noise
from trace_bench.methods.base import Distilled, Method, check_choice
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError


def shortest_between(c: Tensor, d: Tensor) -> Tensor:
    """The shortest vector alpha c + (1 - alpha) d with alpha in [0, 1], one for each sample: [B, ...].

    It is a descent direction of both parts: <g, c> >= |g|^2 and <g, d> >= |g|^2.
    """
    difference = (d - c).flatten(1)
    length2 = difference.square().sum(1)
    alpha = (difference * d.flatten(1)).sum(1) / length2.where(length2 > 0, 1.0)
    alpha = alpha.where(length2 > 0, 1.0).clamp(0.0, 1.0).view(-1, *[1] * (c.dim() - 1))
    return alpha * c + (1.0 - alpha) * d


class BSD(Method):
    """g = B lambda w(t) shortest_between(c, d): the classifier part c and the denoising part d in balance.

    `auto`: c = e(y) - e(neg), d = 1.25 (e(neg) - eps), w(t) = |e(neg) - eps| s_t / 50.
    `standard`: c = classifier_scale (e(y) - e(neg)), d = e(neg), w(t) = a_t (the paper's equation).

    Balance and norm are those of each sample; the released code takes the norm over the batch. The released
    loss is a sum over the batch: hence the factor B.

    Args:
        form: `auto` or `standard`.
        classifier_scale: factor of c in `standard`.
        interval: range of t over the run, fields of `inversion.IntervalSchedule`; its s is not used.
        noise_offset: weight of a per-channel draw added to the noise.
        gradient_scale: lambda.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: None = None,
        form: Literal["auto", "standard"] = "auto",
        classifier_scale: float = 15.0,
        interval: Mapping[str, float] | None = None,
        noise_offset: float = 0.1,
        gradient_scale: float = 0.1,
        **common: Any,
    ) -> None:
        if guidance_scale is not None:
            raise TraceBenchError(f"BSD has no guidance scale; leave out guidance_scale={guidance_scale}.")
        super().__init__(prior, guidance_scale=None, **common)
        self.form = check_choice("form", form, ("auto", "standard"))
        self.classifier_scale = classifier_scale
        self.interval = IntervalSchedule.of(interval)
        self.noise_offset = noise_offset
        self.gradient_scale = gradient_scale

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """Two UNet items per view, at one t for all views."""
        n = latents.shape[0]
        t = self.interval.draw(progress, rng).t
        a, s = level(self.prior.alphas_cumprod, t)
        noise = offset_noise(latents.shape, self.noise_offset, rng, latents)
        x_t = add_noise(latents, noise, a, s)
        texts = text.interpolated(view), text.negative.expand(n)
        _, eps_cond, eps_negative = self.prior.eps_cfg(x_t, timestep(t, x_t), *texts, 1.0)
        classifier = eps_cond - eps_negative
        if self.form == "auto":
            residual = eps_negative - noise
            weight = residual.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * s / 50.0
            balanced = weight * shortest_between(classifier, 1.25 * residual)
        else:
            balanced = a * shortest_between(self.classifier_scale * classifier, eps_negative)
        return Distilled(n * self.gradient_scale * balanced, t=timestep(t, x_t))

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """Two forward items per view."""
        return Work(unet_fwd=2 * batch)
