"""Flow matching in the terms of diffusion: noise levels sigma of x_sigma = (1 - sigma) x_0 + sigma eps.

A flow model predicts the velocity v = E[eps - x_0 | x_sigma] (Lipman et al. 2023; Liu et al. 2023). With
n = hypot(1 - sigma, sigma), x_t = x_sigma / n is a state of a variance-preserving diffusion, with
a = (1 - sigma) / n and s = sigma / n; both have the same signal-to-noise ratio. The change is exact: a DDIM
hop of x_t is an Euler step of x_sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shifted_sigmas(shift: float, n: int = 1000, dtype: torch.dtype = torch.float64) -> Tensor:
    """sigma_t = shift u / (1 + (shift - 1) u) with u = (t + 1) / n (Esser et al. 2024): rises to 1, [n]."""
    u = torch.arange(1, n + 1, dtype=torch.float64) / n
    return (shift * u / (1.0 + (shift - 1.0) * u)).to(dtype)


def sigma_of(alphas_cumprod: Tensor) -> Tensor:
    """sigma with the signal-to-noise ratio of abar: s / (a + s), in the shape of abar."""
    a, s = alphas_cumprod.sqrt(), (1.0 - alphas_cumprod).sqrt()
    return s / (a + s)


def alphas_cumprod_of(sigma: Tensor) -> Tensor:
    """abar with the signal-to-noise ratio of sigma: (1 - sigma)^2 / ((1 - sigma)^2 + sigma^2)."""
    return (1.0 - sigma) ** 2 / ((1.0 - sigma) ** 2 + sigma**2)


def to_flow(x_t: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma of a variance-preserving state x_t [B, C, h, w] with the same signal-to-noise ratio."""
    return torch.hypot(1.0 - sigma, sigma) * x_t


def add_flow_noise(x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma = (1 - sigma) x_0 + sigma eps."""
    return (1.0 - sigma) * x0 + sigma * eps


def flow_to_eps(x_sigma: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """eps = x_sigma + (1 - sigma) v."""
    return x_sigma + (1.0 - sigma) * v


def flow_to_x0(x_sigma: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """x_0 = x_sigma - sigma v."""
    return x_sigma - sigma * v
