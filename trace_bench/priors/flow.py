"""Priors that predict the velocity of a flow, in diffusers' folder format, as diffusion priors.

The change of variables is exact (`diffusion.flow`): to the methods such a prior is a diffusion model with
Stable Diffusion's noise schedule, and a timestep t means the noise level with the same signal-to-noise ratio.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from trace_bench.diffusion.flow import flow_to_eps, shifted_sigmas, sigma_of, to_flow
from trace_bench.diffusion.schedules import scaled_linear_alphas_cumprod
from trace_bench.priors.base import TextEmbedding
from trace_bench.priors.denoiser import Denoiser
from trace_bench.priors.latent_diffusion import LatentDiffusionPrior
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.system.errors import TraceBenchError

FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"


class FlowDenoiser(Denoiser):
    """A network v ~ E[eps - x_0 | x_sigma] that is called with 1000 sigma as its timestep."""

    def predict(self, x_t: Tensor, t: Tensor, text: TextEmbedding, camera: Tensor | None = None) -> Tensor:
        """The velocity at the flow's state of x_t: [B, C, h, w]."""
        sigma = self._sigma(t)
        return self.velocity(to_flow(x_t, sigma), sigma.flatten(), text, camera)

    def velocity(
        self, x_sigma: Tensor, sigma: Tensor, text: TextEmbedding, camera: Tensor | None = None
    ) -> Tensor:
        """The velocity at x_sigma [B, C, h, w] for noise levels sigma [B]."""
        return self._call(x_sigma, 1000.0 * sigma.to(x_sigma), text, camera)

    def _sigma(self, t: Tensor) -> Tensor:
        # Some grids begin below 0, for which Stable Diffusion has the schedule's first value.
        return sigma_of(self.alphas_cumprod[t.clamp(min=0)]).view(-1, 1, 1, 1)

    def to_eps(self, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Convert an output of `predict` to a noise prediction."""
        sigma = self._sigma(t)
        return flow_to_eps(to_flow(x_t, sigma), raw, sigma)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The training target of `predict`: eps - x_0."""
        return eps - x0


class LatentFlowPrior(LatentDiffusionPrior):
    """A frozen latent flow model; `velocity` is its own form, everything else that of a diffusion prior.

    `alphas_cumprod` is Stable Diffusion's schedule, so that every range of t in a method keeps its
    signal-to-noise ratios. `sigmas` [1000] is the model's own, which rises from 0.003 to 1 for SD 3.
    """

    is_flow: ClassVar[bool] = True
    DENOISER: ClassVar[type[FlowDenoiser]] = FlowDenoiser
    _denoiser: FlowDenoiser

    def _alphas_cumprod(self, config: dict[str, Any]) -> Tensor:
        """Stable Diffusion's schedule, on the CPU: [1000]. Also sets `sigmas` from the scheduler's config."""
        if config.get("_class_name") != FLOW_SCHEDULER:
            raise TraceBenchError(
                f"The scheduler of {self.repo} is {config.get('_class_name')}, but a flow prior needs "
                f"{FLOW_SCHEDULER}; for a diffusion model use prior=sd21 with prior.repo."
            )
        if config.get("use_dynamic_shifting"):
            raise TraceBenchError(
                f"The scheduler of {self.repo} has use_dynamic_shifting, which is not supported; "
                "use a model with one shift, such as Stable Diffusion 3."
            )
        dtype = torch.promote_types(self.dtype, torch.float32)
        self.sigmas = shifted_sigmas(config["shift"], config["num_train_timesteps"], dtype).to(self.device)
        return scaled_linear_alphas_cumprod(dtype=dtype)

    def _make_denoiser(self, network: torch.nn.Module, scheduler: dict[str, Any]) -> FlowDenoiser:
        return self.DENOISER(network, "epsilon", self.alphas_cumprod, self.counter)

    @torch.no_grad()
    def velocity(self, x_sigma: Tensor, sigma: Tensor, text: TextEmbedding) -> Tensor:
        """E[eps - x_0 | x_sigma] at x_sigma [B, C, h, w] for noise levels sigma [B] in (0, 1]."""
        return self._denoiser.velocity(x_sigma, sigma, text)


class FlowUNetPrior(LatentFlowPrior, StableDiffusionPrior):
    """A flow UNet beside a diffusion model in Stable Diffusion's format, in `unet_flow` and `scheduler_flow`.

    It shares autoencoder and text encoder with that model, so that the two can be compared.
    """

    NETWORK: ClassVar[str] = "unet_flow"
    SCHEDULER: ClassVar[str] = "scheduler_flow"
