"""An exact Gaussian world: two distributions with full covariance on 1 x 2 x 3 latents."""

from __future__ import annotations

import numpy as np
import torch

from trace_bench.cameras import Cameras, make_cameras
from trace_bench.priors.analytic import AnalyticPrior, Gaussian
from trace_bench.priors.text import PromptText, embed_prompt

SHAPE = (1, 2, 3)
D = 6


def gaussian(seed: int) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(D, D, generator=generator, dtype=torch.float64) / 2.0
    mean = torch.randn(D, generator=generator, dtype=torch.float64)
    return Gaussian(mean, root @ root.T + 0.1 * torch.eye(D, dtype=torch.float64))


def exact_prior(same: bool = False) -> AnalyticPrior:
    """Texts "y" and ""; with `same` both are the same distribution, so that guidance has no effect."""
    return AnalyticPrior({"y": gaussian(1), "": gaussian(1 if same else 2)}, SHAPE)


def exact_text(prior: AnalyticPrior) -> PromptText:
    return embed_prompt(prior, "y")


def cameras(n: int) -> Cameras:
    zeros = torch.zeros(n)
    return make_cameras(zeros, zeros, zeros + 2.0, zeros + 45.0, 2, 2)


def sd_abar(t: np.ndarray) -> np.ndarray:
    """abar_t, computed independently."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return np.cumprod(1.0 - betas)[t]


def exact_eps(prior: AnalyticPrior, name: str, x: np.ndarray, t: int) -> np.ndarray:
    """E[eps | x_t = x] of the named Gaussian, from the closed form: [D]."""
    g = prior.gaussians[prior.names.index(name)]
    abar = float(sd_abar(np.array(t)))
    marginal = abar * g.covariance.numpy() + (1.0 - abar) * np.eye(D)
    return np.sqrt(1.0 - abar) * np.linalg.inv(marginal) @ (x - np.sqrt(abar) * g.mean.numpy())


def exact_eps_cfg(prior: AnalyticPrior, x: np.ndarray, t: int, scale: float) -> np.ndarray:
    """u + s (c - u) of the closed forms: [D]."""
    uncond = exact_eps(prior, "", x, t)
    return uncond + scale * (exact_eps(prior, "y", x, t) - uncond)
