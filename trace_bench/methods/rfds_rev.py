"""RFDS-Rev: RFDS at the noise that the flow itself finds for the render (Yang et al. 2025)."""

from __future__ import annotations

from torch import Tensor

from trace_bench.diffusion.flow import add_flow_noise
from trace_bench.methods.rfds import RFDS
from trace_bench.priors.base import TextEmbedding, Work
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng


class RFDSRev(RFDS):
    """RFDS with eps' = eps + (1 - sigma) (v(x_sigma, sigma, y) - (eps - z)) in place of the fresh noise eps.

    One step from the render towards its own noise, conditional and without guidance.
    """

    def noise_at(self, latents: Tensor, noise: Tensor, sigma: Tensor, cond: TextEmbedding) -> Tensor:
        """eps' of the draw `noise` [B, C, h, w]. sigma: [B, 1, 1, 1]."""
        v = self.flow.velocity(add_flow_noise(latents, noise, sigma), sigma.flatten(), cond)
        return noise + (1.0 - sigma) * (v - (noise - latents))

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """Three forward items per view."""
        return Work(unet_fwd=3 * batch)
