"""The LoRA network of VSD and TraCe: rank-r LoRA on attention, camera as class embedding."""

from __future__ import annotations

import math

import torch
from diffusers.models.embeddings import TimestepEmbedding
from peft import LoraConfig
from torch import Tensor

from trace_bench.priors.base import TextEmbedding
from trace_bench.priors.denoiser import Denoiser
from trace_bench.system.errors import TraceBenchError

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT_TARGETS = ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]  # of a joint attention's text half
CAMERA_DIM = 16  # the flattened camera-to-world matrix


def add_lora(unet: torch.nn.Module, rank: int) -> None:
    """Freeze `unet` in place and add LoRA layers and a camera MLP (ProlificDreamer's conditioning)."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
    width = unet.time_embedding.linear_1.out_features
    unet.class_embedding = TimestepEmbedding(CAMERA_DIM, width).to(unet.device, _trained_dtype(unet.dtype))


def add_lora_to_transformer(transformer: torch.nn.Module, rank: int) -> None:
    """The same for SD3's transformer: LoRA on the attention of its blocks, the camera added to the embedding
    of time and text.

    The last block discards its text half, so its queries of the text have no effect and get no LoRA.
    """
    transformer.requires_grad_(False)
    without_effect = f"transformer_blocks.{len(transformer.transformer_blocks) - 1}.attn.add_q_proj"
    transformer.add_adapter(
        LoraConfig(
            r=rank,
            lora_alpha=rank,
            target_modules=[f"attn.{name}" for name in (*TARGETS, *TEXT_TARGETS)],
            exclude_modules=[without_effect],
        )
    )
    if not isinstance(transformer.time_text_embed, WithCamera):
        transformer.time_text_embed = WithCamera(transformer.time_text_embed)
    transformer.time_text_embed.add_camera(transformer.inner_dim, _trained_dtype(transformer.dtype))


class WithCamera(torch.nn.Module):
    """The embedding of time and pooled text in SD3's transformer, plus that of a camera.

    The transformer hands over only the pooled text, so the camera comes as its last CAMERA_DIM entries.
    """

    def __init__(self, time_text_embed: torch.nn.Module) -> None:
        super().__init__()
        self.base = time_text_embed

    def add_camera(self, width: int, dtype: torch.dtype) -> None:
        """A new camera MLP."""
        device = next(self.base.parameters()).device
        self.camera = TimestepEmbedding(CAMERA_DIM, width).to(device, dtype)

    def forward(self, timestep: Tensor, pooled_and_camera: Tensor) -> Tensor:
        """[B, width] of timesteps [B] and [B, P + CAMERA_DIM]."""
        pooled, camera = pooled_and_camera[:, :-CAMERA_DIM], pooled_and_camera[:, -CAMERA_DIM:]
        embedded = self.base(timestep, pooled.to(next(self.base.parameters()).dtype))
        return embedded + self.camera(camera).to(embedded.dtype)


def _trained_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of trained parameters: float32, or float64 if the network uses it."""
    return torch.promote_types(dtype, torch.float32)


class LoraAdapter:
    """A separate UNet in which only the LoRA layers and the camera MLP train."""

    def __init__(self, denoiser: Denoiser, rank: int, seed: int) -> None:
        """`denoiser` has a network after `add_lora`."""
        self.denoiser = denoiser
        self._trained = {name: p for name, p in denoiser.unet.named_parameters() if p.requires_grad}
        self._reset(rank, seed)

    def _reset(self, rank: int, seed: int) -> None:
        """Down-projections normal with std 1/rank, up-projections zero, camera MLP like PyTorch's Linear."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self._trained.items():
            parameter.data = parameter.data.to(_trained_dtype(parameter.dtype))
            if "lora_B" in name:
                parameter.data.zero_()
            elif "lora_A" in name:
                draw = torch.randn(parameter.shape, generator=generator) / rank
                parameter.data.copy_(draw)
            else:
                fan_in = self._fan_in(name)
                draw = torch.rand(parameter.shape, generator=generator) * 2.0 - 1.0
                parameter.data.copy_(draw / fan_in**0.5)

    def _fan_in(self, name: str) -> int:
        weight = self._trained[name.replace(".bias", ".weight")]
        return weight.shape[1]

    def predict(self, x_t: Tensor, t: Tensor, text: TextEmbedding, camera: Tensor) -> Tensor:
        """The network's raw output (eps or v) with camera [B, 16]; has a graph unless under no_grad."""
        return self.denoiser.predict(x_t, t, text, camera)

    def to_eps(self, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Convert an output of `predict` to a noise prediction."""
        return self.denoiser.to_eps(raw, x_t, t)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The training target of `predict` for x_t = a_t x0 + s_t eps."""
        return self.denoiser.target(x0, eps, t)

    def parameters(self) -> list[torch.nn.Parameter]:
        """LoRA layers and camera MLP."""
        return list(self._trained.values())

    def lora_parameters(self) -> list[torch.nn.Parameter]:
        """The LoRA layers alone."""
        return [p for name, p in self._trained.items() if "lora_" in name]

    def check_trains(self) -> None:
        """Raise if an up-projection is still zero after an optimiser step. TraCe's released code has this
        bug: its adapter silently does not train."""
        ups = {name: p for name, p in self._trained.items() if "lora_B" in name}
        trained = torch.stack(
            torch._foreach_norm(list(ups.values()), ord=math.inf)
        ).tolist()  # the host waits once
        idle = [name for name, norm in zip(ups, trained, strict=True) if norm == 0.0]
        if idle:
            raise TraceBenchError(
                f"{len(idle)} LoRA layers did not change in the first optimiser step, for example {idle[0]}: "
                "the adapter is not training; check the method's adapter learning rate."
            )

    def state_dict(self) -> dict[str, Tensor]:
        """LoRA layers and camera MLP by name."""
        return {name: p.detach().clone() for name, p in self._trained.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the result of `state_dict`."""
        for name, parameter in self._trained.items():
            parameter.data.copy_(state[name])
