"""TSM: trajectory score matching (Miao et al. 2024, Dreamer XL); designed for SDXL, runs on any prior."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trace_bench.diffusion.inversion import Interval, ddim_hop, level, timestep
from trace_bench.methods.ism import IntervalMatching
from trace_bench.priors.base import Prior, TextEmbedding


class TSM(IntervalMatching):
    """target = e(x_mu, mu, "") with mu = s + (t - s) sqrt(1 - gamma^2) between s and t.

    x_mu and x_t are each one hop from x_s, by the same prediction at x_s.

    Args:
        gamma: 0 puts mu at t, 1 at s, which is ISM.
    """

    def __init__(self, prior: Prior, *, gamma: float = 0.3, **common: Any) -> None:
        super().__init__(prior, **common)
        self.gamma = gamma

    def trajectory(
        self, z: Tensor, noise: Tensor, between: Interval, empty: TextEmbedding
    ) -> tuple[Tensor, Tensor]:
        """x_t and the prediction at x_mu."""
        abar, mu = self.prior.alphas_cumprod, between.between(self.gamma)
        x_s, eps_s = self.invert(z, noise, between, empty)
        at_s = level(abar, between.s)
        x_mu, x_t = (ddim_hop(x_s, eps_s, at_s, level(abar, v)) for v in (mu, between.t))
        return x_t, self.prior.eps(x_mu, timestep(mu, x_mu), empty)

    def trajectory_items(self, between: Interval) -> int:
        """Those of the inversion, and one at mu."""
        return self.invert_items(between) + 1
