"""CSD: classifier score distillation (Yu et al. 2023, "Text-to-3D with Classifier Score Distillation")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.schedules import add_noise, alpha_sigma
from trace_bench.methods.base import Distilled, check_choice
from trace_bench.methods.random_timestep import RandomTimestep
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress, scheduled
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError


class CSD(RandomTimestep):
    """g = w(t) (e(x_t, t, y) + c_n e(x_t, t, negative) + c_0 e(x_t, t, "")),  c_n + c_0 = -1

    A difference of scores: the noise in x_t does not appear, and there is no guidance scale. A branch with
    coefficient zero is not evaluated.

    Args:
        negative_coefficient: c_n, a constant or a schedule over the run.
        two_branch: c_n = -1 for the whole run; the empty prompt is never evaluated.
        min_step_percent, max_step_percent, t_schedule: range of t (`timesteps.TimestepSchedule`).
        weighting: w(t) = s_t^2 (`sds`), or 1 (`one`) as in the released pixel-space stage.
        grad_normalize: scale the batch's gradient to unit L2 norm, as the released pixel-space stage does.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: None = None,
        negative_coefficient: float | Sequence[float] = (0.0, -1.0, -0.5, 1.0),
        two_branch: bool = False,
        max_step_percent: float | Sequence[float] = (0.5, 0.98, 0.5, 0.5),
        weighting: Literal["sds", "one"] = "sds",
        grad_normalize: bool = False,
        **common: Any,
    ) -> None:
        if guidance_scale is not None:
            raise TraceBenchError(f"CSD has no guidance scale; leave out guidance_scale={guidance_scale}.")
        super().__init__(prior, guidance_scale=None, max_step_percent=max_step_percent, **common)
        self.negative_coefficient = negative_coefficient
        self.two_branch = two_branch
        self.weighting = check_choice("weighting", weighting, ("sds", "one"))
        self.grad_normalize = grad_normalize

    def coefficients(self, progress: Progress) -> tuple[float, float]:
        """(c_n, c_0): coefficients of the negative and the empty prompt."""
        negative = -1.0 if self.two_branch else scheduled(self.negative_coefficient, progress.fraction)
        return negative, -1.0 - negative

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """One call with two or three UNet items per view."""
        n = latents.shape[0]
        t = self.draw_t(n, progress, rng, latents.device)
        a, s = alpha_sigma(self.prior.alphas_cumprod, t)
        x_t = add_noise(latents, rng.randn("eps", latents.shape, latents.device, latents.dtype), a, s)

        branches = [(1.0, text.view_dependent(view, self.view_thresholds))]
        for coefficient, other in zip(self.coefficients(progress), (text.negative, text.empty), strict=True):
            if coefficient != 0.0:
                branches.append((coefficient, other.expand(n)))
        m = len(branches)
        texts = TextEmbedding.cat([branch for _, branch in branches])
        eps = self.prior.eps(torch.cat([x_t] * m), torch.cat([t] * m), texts).chunk(m)
        score = torch.stack([c * e for (c, _), e in zip(branches, eps, strict=True)]).sum(0)
        grad = s**2 * score if self.weighting == "sds" else score
        return Distilled(grad / (grad.norm() + 1e-8) if self.grad_normalize else grad, t=t)

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """One forward item per view for the prompt and for each nonzero coefficient."""
        return Work(unet_fwd=(1 + sum(c != 0.0 for c in self.coefficients(progress))) * batch)
