"""SDI: score distillation via inversion (Lukoianov et al. 2024)."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.inversion import ddim_invert, level, sdi_timesteps, timestep
from trace_bench.diffusion.schedules import add_noise, eps_to_x0
from trace_bench.methods.base import Distilled, Method, check_choice
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.priors.perp_neg import PerpNegText, guided_eps, guided_items, threestudio_text
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress, scheduled
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError


class SDI(Method):
    """g = z - x0, x0 = (x_inv - s_t e_cfg(x_inv, t, y)) / a_t

    x_inv is z moved up to t + delta by DDIM inversion under negative guidance, delta ~ U{0..99}, and
    x_inv = a z + s kappa defines the noise kappa. With `remap`, x_inv is first brought back to level t; then
    g = (s_t / a_t) (e_cfg - kappa), which is SDS with the inverted noise instead of a random one.

    Args:
        max_step_percent, min_step_percent: t falls linearly between these shares of the schedule.
        inversion_guidance_scale, inversion_steps, inversion_eta: guidance, grid and noise of the inversion.
        skip_first_hop: start at timestep 1; the released grid starts at 1 - 100, a hop that hardly changes x.
        remap: evaluate at a_t z + s_t kappa; the released code uses x_inv, which is noisier than level t.
        reduction: `sum` as in every other method; `mean` is the released loss, g / (B D) for D latents per
            sample. Adam ignores this factor, but densification and regularisers do not.
        perp_neg: use Perp-Neg guidance (threestudio's form) during and after the inversion.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        max_step_percent: float = 0.98,
        min_step_percent: float = 0.25,
        inversion_guidance_scale: float = -7.5,
        inversion_steps: int = 10,
        inversion_eta: float = 0.3,
        skip_first_hop: bool = False,
        remap: bool = False,
        reduction: Literal["sum", "mean"] = "sum",
        perp_neg: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.max_step_percent, self.min_step_percent = max_step_percent, min_step_percent
        self.inversion_guidance_scale = inversion_guidance_scale
        self.inversion_steps, self.inversion_eta = inversion_steps, inversion_eta
        self.skip_first_hop = skip_first_hop
        self.remap = remap
        self.reduction = check_choice("reduction", reduction, ("sum", "mean"))
        self.perp_neg = perp_neg
        if int(len(prior.alphas_cumprod) * min(min_step_percent, max_step_percent)) < 2:
            raise TraceBenchError(
                "method.min_step_percent is too small: t must stay at 2 or more for the inversion."
            )

    def timestep(self, progress: Progress) -> int:
        """One t for the whole batch, falling over the run."""
        share = scheduled((0.0, self.max_step_percent, self.min_step_percent, 1.0), progress.fraction)
        return int(len(self.prior.alphas_cumprod) * share + 1e-9)

    def grid(self, t: int, rng: StepRng) -> list[int]:
        """Timesteps of the inversion; the last one is t + delta."""
        total = len(self.prior.alphas_cumprod)
        delta = int(rng.randint("delta", 0, total // self.inversion_steps, 1))
        return sdi_timesteps(t, delta, self.inversion_steps, total, first=not self.skip_first_hop)

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """Invert up to t + delta, then denoise with one prediction."""
        n = latents.shape[0]
        uncond = text.negative.expand(n)
        cond: TextEmbedding | PerpNegText = text.view_dependent(view, self.view_thresholds)
        if self.perp_neg:
            cond = threestudio_text(text, view, self.view_thresholds.overhead)
        t = self.timestep(progress)
        a, s = level(self.prior.alphas_cumprod, t)
        x_t, kappa = self.invert(latents, self.grid(t, rng), cond, uncond, rng)
        if self.remap:
            x_t = add_noise(latents, kappa, a, s)
        eps = guided_eps(self.prior, x_t, timestep(t, x_t), cond, uncond, self.guidance_scale)
        target = eps_to_x0(x_t, eps, a, s)
        grad = latents - target
        grad = grad if self.reduction == "sum" else grad / latents.numel()
        return Distilled(grad, target=target, t=timestep(t, x_t))

    def invert(
        self,
        z: Tensor,
        grid: list[int],
        cond: TextEmbedding | PerpNegText,
        uncond: TextEmbedding,
        rng: StepRng,
    ) -> tuple[Tensor, Tensor]:
        """x_inv at the last timestep of the grid, and the noise kappa in it: x_inv = a z + s kappa."""

        def predict(x: Tensor, t: Tensor) -> Tensor:
            return guided_eps(self.prior, x, t, cond, uncond, self.inversion_guidance_scale)

        def noise(u: int) -> Tensor | None:
            if self.inversion_eta == 0.0:
                return None
            return self.inversion_eta * rng.randn(f"xi/{u}", z.shape, z.device, z.dtype)

        x_inv = ddim_invert(z, grid, self.prior.alphas_cumprod, predict, noise)
        a, s = level(self.prior.alphas_cumprod, grid[-1])
        return x_inv, (x_inv - a * z) / s

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """One guided call per hop of the inversion, and one after it."""
        calls = len(self.grid(self.timestep(progress), rng))
        return Work(unet_fwd=guided_items(self.perp_neg) * calls * batch)
