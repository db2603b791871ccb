"""CFD: consistent flow distillation (Yan et al. 2025), and FSD, flow score distillation (Yan et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.inversion import timestep
from trace_bench.diffusion.place_noise import SurfaceMaps, background, sky_noise, surface_noise
from trace_bench.diffusion.schedules import add_noise, alpha_sigma, eps_to_x0
from trace_bench.methods.base import Distilled, Geometry, Method, check_choice
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError


class CFD(Method):
    """g = r_t (e_cfg(x_t, t, y) - n(c)) with x_t = a_t z + s_t n(c) and r_t = s_t / a_t

    t falls over the run and is the same for all views; n(c) is a noise that belongs to what camera c sees.
    g = z - x0(x_t). With one fixed noise, a run is the DDIM trajectory of that noise.

    Args:
        noise: n(c). `fixed`: one map for all steps and views; `worldmap`: a map of the sky (FSD); `surface`:
            maps on the surface; `random`: drawn afresh, as in SDS.
        anneal: (share of the run, p) in rising order; p is linear between them, and
            t = round(T (0.96 (1 - p) + 0.02)).
        weighting: r_t (`ratio`), or s_t^2 as in SDS (`sds`).
        map_size, map_layers, map_samples: of the surface's maps (`place_noise.SurfaceMaps`).
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        noise: Literal["random", "fixed", "worldmap", "surface"] = "surface",
        anneal: Sequence[Sequence[float]] = ((0.0, 0.0), (1.0, 1.0)),
        weighting: Literal["ratio", "sds"] = "ratio",
        map_size: int = 256,
        map_layers: int = 4,
        map_samples: int = 8,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.noise = check_choice("noise", noise, ("random", "fixed", "worldmap", "surface"))
        self.uses_geometry = noise in ("worldmap", "surface")
        self.anneal = [(float(share), float(p)) for share, p in anneal]
        if not self.anneal or any(u[0] >= v[0] for u, v in pairwise(self.anneal)):
            raise TraceBenchError(f"method.anneal={self.anneal} must have rising shares of the run.")
        self.weighting = check_choice("weighting", weighting, ("ratio", "sds"))
        self.maps = SurfaceMaps(map_size, map_layers, map_samples)

    def timestep(self, progress: Progress) -> int:
        """The t of this step."""
        share, p = progress.fraction, self.anneal[0][1]
        for (u, p_u), (v, p_v) in pairwise(self.anneal):
            if u <= share:
                p = p_u + (p_v - p_u) * min((share - u) / (v - u), 1.0)
        total = len(self.prior.alphas_cumprod)
        return round(total * (0.96 * (1.0 - p) + 0.02))

    def noise_of(self, latents: Tensor, view: Cameras, geometry: Geometry | None, rng: StepRng) -> Tensor:
        """n(c) of each view: [B, C, h, w]."""
        shape = (latents.shape[1], latents.shape[2], latents.shape[3])
        if self.noise == "random":
            return rng.randn("eps", latents.shape, latents.device, latents.dtype)
        if self.noise == "fixed":
            found = background(self.seed, shape).expand(len(latents), -1, -1, -1)
        elif geometry is None:
            raise ValueError(f"noise={self.noise} needs the geometry of the render")
        elif self.noise == "worldmap":
            found = sky_noise(self.seed, view, geometry.alpha, shape)
        else:
            found = surface_noise(self.seed, view, geometry.depth, geometry.alpha, shape, self.maps)
        return found.to(latents)

    def step(
        self,
        latents: Tensor,
        text: PromptText,
        view: Cameras,
        progress: Progress,
        rng: StepRng,
        geometry: Geometry | None = None,
    ) -> Distilled:
        """Two UNet items per view."""
        n = latents.shape[0]
        t = timestep(self.timestep(progress), latents)
        a, s = alpha_sigma(self.prior.alphas_cumprod, t)
        noise = self.noise_of(latents, view, geometry, rng)
        x_t = add_noise(latents, noise, a, s)
        cond = text.view_dependent(view, self.view_thresholds)
        eps_cfg, _, _ = self.prior.eps_cfg(x_t, t, cond, text.negative.expand(n), self.guidance_scale)
        weight = s / a if self.weighting == "ratio" else s**2
        return Distilled(weight * (eps_cfg - noise), target=eps_to_x0(x_t, eps_cfg, a, s), t=t)

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """Two forward items per view."""
        return Work(unet_fwd=2 * batch)
