"""The interface of a prior: a frozen denoiser with an encoder that counts its own work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from trace_bench.system.errors import TraceBenchError


@dataclass(frozen=True)
class TextEmbedding:
    """Text conditioning of a network: token states and, for SDXL and SD 3, a pooled vector."""

    tokens: Tensor  # [B, L, C]
    pooled: Tensor | None = None  # [B, P]

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, index: Tensor | slice | list[int]) -> TextEmbedding:
        """The rows at `index` (a slice, list or index tensor), still batched."""
        return TextEmbedding(self.tokens[index], None if self.pooled is None else self.pooled[index])

    def expand(self, n: int) -> TextEmbedding:
        """Repeat one embedding for `n` items, without a copy."""
        pooled = None if self.pooled is None else self.pooled.expand(n, -1)
        return TextEmbedding(self.tokens.expand(n, -1, -1), pooled)

    @staticmethod
    def cat(parts: Sequence[TextEmbedding]) -> TextEmbedding:
        """Concatenate batches."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return TextEmbedding(
            torch.cat([part.tokens for part in parts]), torch.cat(pooled) if pooled else None
        )

    @staticmethod
    def where(condition: Tensor, first: TextEmbedding, second: TextEmbedding) -> TextEmbedding:
        """Row-wise: `first` if the condition [B] holds, else `second`."""
        return first._with(second, lambda a, b: torch.where(_rows(condition, a), a, b))

    @staticmethod
    def mix(first: TextEmbedding, second: TextEmbedding, share: Tensor) -> TextEmbedding:
        """share first + (1 - share) second with share [B]."""
        return first._with(second, lambda a, b: _rows(share, a) * a + (1.0 - _rows(share, a)) * b)

    def _with(self, other: TextEmbedding, combine: Callable[[Tensor, Tensor], Tensor]) -> TextEmbedding:
        pooled = None
        if self.pooled is not None and other.pooled is not None:
            pooled = combine(self.pooled, other.pooled)
        return TextEmbedding(combine(self.tokens, other.tokens), pooled)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """values [B], reshaped to the number of dimensions of `like`."""
    return values.view(-1, *[1] * (like.dim() - 1))


@dataclass
class Work:
    """Network work in batch items: the cost of a run."""

    unet_fwd: int = 0
    unet_bwd: int = 0
    vae_enc_fwd: int = 0
    vae_enc_bwd: int = 0
    vae_dec: int = 0
    reward: int = 0  # pictures that a reward rated

    def __add__(self, other: Work) -> Work:
        return Work(**{key: value + getattr(other, key) for key, value in asdict(self).items()})

    def __sub__(self, other: Work) -> Work:
        return Work(**{key: value - getattr(other, key) for key, value in asdict(self).items()})

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


class Adapter(Protocol):
    """A trainable, camera-conditioned copy of the denoiser: the LoRA network of VSD and TraCe."""

    def predict(self, x_t: Tensor, t: Tensor, text: TextEmbedding, camera: Tensor) -> Tensor:
        """The network's raw output (eps or v) at x_t [B, C, h, w] for camera [B, 16]; may have a graph."""
        ...

    def train(
        self,
        x_t: Tensor,
        t: Tensor,
        text: TextEmbedding,
        camera: Tensor,
        loss: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Set the `grad` of each parameter to that of `loss`, a function of the raw output [B, C, h, w].

        Returns the output and the loss, without a graph. The optimiser step is the caller's.
        """
        ...

    def to_eps(self, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Convert an output of `predict` to a noise prediction: [B, C, h, w]."""
        ...

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The training target of `predict` for x_t = a_t x0 + s_t eps."""
        ...

    def parameters(self) -> list[torch.nn.Parameter]:
        """The trained parameters only."""
        ...

    def lora_parameters(self) -> list[torch.nn.Parameter]:
        """The trained parameters without those of the camera MLP."""
        ...

    def check_trains(self) -> None:
        """Raise TraceBenchError if an optimiser step did not change the adapter."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All state that changes during training."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the result of `state_dict`."""
        ...


class Prior(Protocol):
    """A frozen diffusion prior. Latents are float32 (float64 for the analytic prior) on `device`."""

    alphas_cumprod: Tensor  # [T]
    latent_shape: tuple[int, int, int]  # C, h, w
    resolution: int  # image side in pixels for `encode`
    device: torch.device
    counter: Work

    def check_prompt(self, text: str) -> None:
        """Raise TraceBenchError if the text encoder does not know some words of `text`; name them."""
        ...

    def fit(self, text: str, ending: str = "") -> str:
        """The longest beginning of `text` that the text encoder reads in full with `ending` after it; `text`
        itself if both fit."""
        ...

    def embed(self, texts: Sequence[str]) -> TextEmbedding:
        """Token states of each text, padded as in training: B = len(texts). A text that is too long is cut
        at its end (`fit`)."""
        ...

    def encode(self, rgb: Tensor, noise: Tensor) -> Tensor:
        """Latents [B, C, h, w] of rgb [B, 3, H, W] in [0, 1]: one posterior sample, differentiable in rgb."""
        ...

    def encode_backward(self, rgb: Tensor, latents: Tensor, grad: Tensor, keep: bool = False) -> Tensor:
        """The gradient in rgb that belongs to `grad` in latents = encode(rgb, noise); rgb is a leaf.

        Priors shared by lanes merge these calls, so the loop asks for it instead of waiting inside autograd.
        keep: it will be asked for again.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """rgb [B, 3, H, W] in [0, 1] of latents [B, C, h, w], without a graph."""
        ...

    def eps(self, latents: Tensor, t: Tensor, text: TextEmbedding) -> Tensor:
        """Noise prediction at latents [B, C, h, w], timesteps int64 [B]; never has a graph."""
        ...

    def eps_cfg(
        self,
        latents: Tensor,
        t: Tensor,
        cond: TextEmbedding,
        uncond: TextEmbedding,
        guidance_scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Guided, conditional and unconditional noise prediction from one batched call."""
        ...

    def adapter(self, rank: int, seed: int) -> Adapter:
        """A new adapter with its own weights; earlier ones stay as they are."""
        ...


class FlowPrior(Prior, Protocol):
    """A prior that predicts the velocity of a flow: `is_flow` is True."""

    sigmas: Tensor  # [T], the model's own noise levels, rising to 1

    def velocity(self, x_sigma: Tensor, sigma: Tensor, text: TextEmbedding) -> Tensor:
        """E[eps - x_0 | x_sigma] at x_sigma = (1 - sigma) x_0 + sigma eps [B, C, h, w], noise levels
        sigma [B]; never has a graph."""
        ...


def flow_prior(prior: Prior, method: str) -> FlowPrior:
    """`prior`, if it is a flow prior.

    Raises:
        TraceBenchError: it is not; names `method`.
    """
    if not getattr(prior, "is_flow", False):
        raise TraceBenchError(
            f"{method} needs a prior that predicts the velocity of a flow, and {type(prior).__name__} does "
            "not; use prior=sd3 or prior=tiny_flow."
        )
    return cast(FlowPrior, prior)


def pull_back(rgb: Tensor, latents: Tensor, grad: Tensor, keep: bool = False) -> Tensor:
    """`Prior.encode_backward` by autograd, for latents that carry their graph."""
    (found,) = torch.autograd.grad(latents, rgb, grad, retain_graph=keep)
    return found


def train_alone(
    adapter: Adapter,
    x_t: Tensor,
    t: Tensor,
    text: TextEmbedding,
    camera: Tensor,
    loss: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """`Adapter.train` by autograd, for an adapter whose `predict` carries its graph."""
    with torch.enable_grad():
        raw = adapter.predict(x_t, t, text, camera)
        value = loss(raw)
    parameters = adapter.parameters()
    for parameter, grad in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
        parameter.grad = grad.contiguous()  # fused optimisers take this for granted
    return raw.detach(), value.detach()


def guide(eps_uncond: Tensor, direction: Tensor, guidance_scale: float) -> Tensor:
    """e = e_uncond + s d: the only guidance formula of the product.

    d is e_cond - e_uncond for classifier-free guidance, and Perp-Neg's direction for Perp-Neg.
    """
    return eps_uncond + guidance_scale * direction


def classifier_free_guidance(eps_cond: Tensor, eps_uncond: Tensor, guidance_scale: float) -> Tensor:
    """e = e_uncond + s (e_cond - e_uncond) (Ho & Salimans 2022, in the form of diffusers).

    s = 0 is unconditional, s = 1 conditional.
    """
    return guide(eps_uncond, eps_cond - eps_uncond, guidance_scale)


def guided(
    eps: Callable[[Tensor, Tensor, TextEmbedding], Tensor],
    latents: Tensor,
    t: Tensor,
    cond: TextEmbedding,
    uncond: TextEmbedding,
    guidance_scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`Prior.eps_cfg` from one call of `eps` with 2 B items."""
    pair = eps(torch.cat([latents, latents]), torch.cat([t, t]), TextEmbedding.cat([cond, uncond]))
    eps_cond, eps_uncond = pair.chunk(2)
    return classifier_free_guidance(eps_cond, eps_uncond, guidance_scale), eps_cond, eps_uncond
