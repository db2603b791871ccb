"""TraCe's Schrödinger bridge between two Dirac endpoints (I2SB's closed form; TraCe, appendix B)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bridge:
    """Standard deviations of the bridge q(x_t | x_0, x_1); each [T], indexed by integer t."""

    std_fwd: Tensor  # sigma_t, accumulated from the x_0 end, including beta_t
    std_bwd: Tensor  # sigma-bar_t, accumulated from the x_1 end, including beta_t

    @classmethod
    def symmetric(cls, beta_min: float = 1e-4, beta_max: float = 3e-4, n: int = 1000) -> Bridge:
        """I2SB's symmetric schedule: the first half of a ramp linear in sqrt(beta), then its mirror image."""
        ramp = torch.linspace(beta_min**0.5, beta_max**0.5, n, dtype=torch.float64) ** 2
        betas = torch.cat([ramp[: n // 2], ramp[: n // 2].flip(0)])
        return cls(std_fwd=betas.cumsum(0).sqrt(), std_bwd=betas.flip(0).cumsum(0).flip(0).sqrt())

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Bridge:
        """The same bridge with another device and dtype."""
        return Bridge(self.std_fwd.to(device, dtype), self.std_bwd.to(device, dtype))

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of x_0 and x_1 in the mean mu_t, and the standard deviation of x_t; each [B, 1, 1, 1]."""
        fwd2 = self.std_fwd[t].view(-1, 1, 1, 1) ** 2
        bwd2 = self.std_bwd[t].view(-1, 1, 1, 1) ** 2
        total = fwd2 + bwd2
        return bwd2 / total, fwd2 / total, (fwd2 * bwd2 / total).sqrt()

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor, xi: Tensor) -> Tensor:
        """x_t = mu_t(x_0, x_1) + Sigma_t^(1/2) xi (TraCe, Algorithm 1, line 6): [B, C, h, w]."""
        w0, w1, std = self.coefficients(t)
        return w0 * x0 + w1 * x1 + std * xi

    def noise(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """b_t = (x_t - x_0) / sigma_t, I2SB's regression target: [B, C, h, w]."""
        return (x_t - x0) / self.std_fwd[t].view(-1, 1, 1, 1)
