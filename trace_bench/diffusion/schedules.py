"""The noise schedule and changes of parametrisation: pure functions on tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trace_bench.progress import scheduled


def scaled_linear_alphas_cumprod(
    beta_start: float = 0.00085, beta_end: float = 0.012, n: int = 1000, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Cumulative product of 1 - beta_t with sqrt(beta_t) linear in t, as in Stable Diffusion: [n]."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, n, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0).to(dtype)


def alpha_sigma(alphas_cumprod: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """a_t = sqrt(abar_t) and s_t = sqrt(1 - abar_t) at integer timesteps, as [B, 1, 1, 1]."""
    abar = alphas_cumprod[t].view(-1, 1, 1, 1)
    return abar.sqrt(), (1.0 - abar).sqrt()


def add_noise(x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """x_t = a_t x_0 + s_t eps."""
    return a * x0 + s * eps


def eps_to_x0(x_t: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """x_0 = (x_t - s_t eps) / a_t."""
    return (x_t - s * eps) / a


def v_to_eps(x_t: Tensor, v: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """eps = a_t v + s_t x_t (Salimans & Ho 2022, v = a_t eps - s_t x_0)."""
    return a * v + s * x_t


def eps_to_v(x_t: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """v = (eps - s_t x_t) / a_t, the inverse of `v_to_eps`."""
    return (eps - s * x_t) / a


def velocity(x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """v = a_t eps - s_t x_0."""
    return a * eps - s * x0


def clamp_gradient(grad: Tensor, limit: float | Sequence[float] | None, fraction: float) -> Tensor:
    """Element-wise clamp of a latent gradient to [-c, c], c = scheduled(limit); no clamp if None."""
    if limit is None:
        return grad
    c = scheduled(limit, fraction)
    return grad.clamp(-c, c)


def dreamtime_weights(t_min: int, t_max: int, m1: float, m2: float, s1: float, s2: float) -> Tensor:
    """DreamTime's time prior W_t on t_min..t_max-1: 1 on [m2, m1], Gaussian shoulders of width s1 above m1
    and s2 below m2 (Huang et al. 2023, eq. 7): float64 [t_max - t_min]."""
    t = torch.arange(t_min, t_max, dtype=torch.float64)
    above = torch.exp(-((t - m1) ** 2) / (2.0 * s1**2))
    below = torch.exp(-((t - m2) ** 2) / (2.0 * s2**2))
    return torch.where(t > m1, above, torch.where(t < m2, below, torch.ones_like(t)))


def dreamtime_timestep(weights: Tensor, t_min: int, ratio: float) -> int:
    """The timestep whose share of the weight at or above it is closest to `ratio`; non-increasing in `ratio`.

    t = t_min + argmin_i |P_i - ratio| with P_i = sum_{j >= i} W_j / sum W (Huang et al. 2023, eq. 6).
    """
    tail = weights.flip(0).cumsum(0).flip(0) / weights.sum()
    return t_min + int((tail - ratio).abs().argmin())
