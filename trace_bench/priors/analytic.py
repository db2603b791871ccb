"""A prior on Gaussian data, so that its score is exact: used to verify the methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from trace_bench.diffusion.flow import alphas_cumprod_of, shifted_sigmas
from trace_bench.diffusion.schedules import scaled_linear_alphas_cumprod
from trace_bench.priors.base import TextEmbedding, Work, guided, pull_back, train_alone
from trace_bench.system.errors import TraceBenchError


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution over flattened latents."""

    mean: Tensor  # [D]
    covariance: Tensor  # [D, D]

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        variances, axes = torch.linalg.eigh(self.covariance)
        return variances, axes

    def eps(self, x_t: Tensor, abar: Tensor) -> Tensor:
        """E[eps | x_t] = s_t (a_t^2 Sigma + s_t^2 I)^-1 (x_t - a_t mu), for x_t [B, D] and abar [B]."""
        variances, axes = self._eigen
        a2 = abar.view(-1, 1)
        along_axes = (x_t - a2.sqrt() * self.mean) @ axes
        return (1.0 - a2).sqrt() * (along_axes / (a2 * variances + 1.0 - a2)) @ axes.T


class AnalyticPrior:
    """Gaussian data for each text; latents are the pixels, 2 x - 1. Diffusion and flow prior at once.

    Args:
        gaussians: text -> Gaussian; "" is the unconditional one. "name, front view" falls back to "name".
        latent_shape: (C, h, w) with D = C h w.
        dtype: float64 for exact comparisons.
    """

    is_flow: ClassVar[bool] = True

    def __init__(
        self,
        gaussians: Mapping[str, Gaussian],
        latent_shape: tuple[int, int, int],
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.names = list(gaussians)
        self.gaussians = list(gaussians.values())
        self.latent_shape = latent_shape
        self.resolution = latent_shape[1]
        self.device = torch.device("cpu")
        self.dtype = dtype
        self.alphas_cumprod = scaled_linear_alphas_cumprod(dtype=dtype)
        self.sigmas = shifted_sigmas(3.0, dtype=dtype)
        self.counter = Work()
        self.adapters_made = 0

    def _index(self, text: str) -> int:
        name = text if text in self.names else text.split(",", maxsplit=1)[0]
        if name not in self.names:
            raise TraceBenchError(
                f"The analytic prior has no distribution named {text!r}; it has {self.names}."
            )
        return self.names.index(name)

    def check_prompt(self, text: str) -> None:
        """Raise if no Gaussian has this name."""
        self._index(text)

    def fit(self, text: str, ending: str = "") -> str:
        """`text`: names have no limit."""
        return text

    def embed(self, texts: Sequence[str]) -> TextEmbedding:
        """The index of each text's Gaussian as a single token: [B, 1, 1]."""
        return TextEmbedding(torch.tensor([[[float(self._index(text))]] for text in texts], dtype=self.dtype))

    def encode(self, rgb: Tensor, noise: Tensor) -> Tensor:
        """2 rgb - 1: [B, C, h, w]. The posterior is a point, so `noise` is ignored."""
        latents = 2.0 * rgb.to(self.dtype) - 1.0
        self.counter.vae_enc_fwd += rgb.shape[0]
        if latents.requires_grad:
            latents.register_hook(self._count_encoder_backward)
        return latents

    def _count_encoder_backward(self, grad: Tensor) -> None:
        self.counter.vae_enc_bwd += grad.shape[0]

    def encode_backward(self, rgb: Tensor, latents: Tensor, grad: Tensor, keep: bool = False) -> Tensor:
        """The gradient in rgb that belongs to `grad` in latents = encode(rgb, noise)."""
        return pull_back(rgb, latents, grad, keep)

    def decode(self, latents: Tensor) -> Tensor:
        """(latents + 1) / 2: [B, C, h, w]."""
        self.counter.vae_dec += latents.shape[0]
        return (latents.detach() + 1.0) / 2.0

    @torch.no_grad()
    def eps(self, latents: Tensor, t: Tensor, text: TextEmbedding) -> Tensor:
        """The exact noise prediction of each item under its Gaussian."""
        return self._eps(latents, self.alphas_cumprod[t.clamp(min=0)], text)

    @torch.no_grad()
    def velocity(self, x_sigma: Tensor, sigma: Tensor, text: TextEmbedding) -> Tensor:
        """The exact velocity of each item under its Gaussian, for noise levels sigma [B] below 1."""
        level = sigma.view(-1, 1, 1, 1)
        x_t = x_sigma / torch.hypot(1.0 - level, level)
        return (self._eps(x_t, alphas_cumprod_of(sigma), text) - x_sigma) / (1.0 - level)

    def _eps(self, latents: Tensor, abar: Tensor, text: TextEmbedding) -> Tensor:
        """The exact noise prediction at levels abar [B]; counted."""
        self.counter.unet_fwd += latents.shape[0]
        flat = latents.reshape(len(latents), -1)
        out = torch.empty_like(flat)
        which = text.tokens[:, 0, 0].round().long()
        for index in which.unique().tolist():
            rows = which == index
            out[rows] = self.gaussians[index].eps(flat[rows], abar[rows])
        return out.view_as(latents)

    def eps_cfg(
        self,
        latents: Tensor,
        t: Tensor,
        cond: TextEmbedding,
        uncond: TextEmbedding,
        guidance_scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Guided, conditional and unconditional prediction."""
        return guided(self.eps, latents, t, cond, uncond, guidance_scale)

    def adapter(self, rank: int, seed: int) -> AffineAdapter:
        """A new affine adapter; rank and seed are ignored."""
        self.adapters_made += 1
        return AffineAdapter(self)


class AffineAdapter:
    """eps_phi(x_t, t) = sum_i f_i(t) (p_i x_t + q_i). It can represent the exact answer for a point or an
    isotropic Gaussian at every t, so convergence of adapter training can be verified. Starts at zero."""

    FEATURES = 6

    def __init__(self, prior: AnalyticPrior) -> None:
        self.prior = prior
        n = self.FEATURES
        self.scale = torch.nn.Parameter(torch.zeros(n, dtype=prior.dtype))
        self.shift = torch.nn.Parameter(torch.zeros(n, *prior.latent_shape, dtype=prior.dtype))

    def predict(self, x_t: Tensor, t: Tensor, text: TextEmbedding, camera: Tensor) -> Tensor:
        """Noise prediction [B, C, h, w]; text and camera are ignored."""
        self.prior.counter.unet_fwd += x_t.shape[0]
        u = t.to(x_t.dtype) / len(self.prior.alphas_cumprod)
        basis = torch.stack([torch.cos(torch.pi * i * u) for i in range(self.FEATURES)], dim=1)  # [B, F]
        scale = (basis @ self.scale).view(-1, 1, 1, 1)
        shift = torch.einsum("bf,fchw->bchw", basis, self.shift)
        out = scale * x_t + shift
        if out.requires_grad:
            out.register_hook(self._count_backward)
        return out

    def _count_backward(self, grad: Tensor) -> None:
        self.prior.counter.unet_bwd += grad.shape[0]

    def train(
        self,
        x_t: Tensor,
        t: Tensor,
        text: TextEmbedding,
        camera: Tensor,
        loss: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The gradient of the loss in both parameters; returns output and loss."""
        return train_alone(self, x_t, t, text, camera, loss)

    def to_eps(self, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """`raw` unchanged: this is an epsilon model."""
        return raw

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The noise: this is an epsilon model."""
        return eps

    def parameters(self) -> list[torch.nn.Parameter]:
        """Scale and shift of each feature."""
        return [self.scale, self.shift]

    def lora_parameters(self) -> list[torch.nn.Parameter]:
        """The same: no camera enters."""
        return self.parameters()

    def check_trains(self) -> None:
        """Nothing to check: any loss trains both parameters."""

    def state_dict(self) -> dict[str, Tensor]:
        """Scale and shift."""
        return {"scale": self.scale.detach().clone(), "shift": self.shift.detach().clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the result of `state_dict`."""
        self.scale.data.copy_(state["scale"])
        self.shift.data.copy_(state["shift"])
