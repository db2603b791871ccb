"""The LoRA network of VSD and TraCe: rank-r LoRA on attention, the camera in the class-embedding slot."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import TimestepEmbedding
from peft import LoraConfig
from torch import Tensor

from trace_bench.priors.base import TextEmbedding, Work
from trace_bench.priors.denoiser import Denoiser
from trace_bench.system.errors import TraceBenchError

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
CAMERA_DIM = 16  # the flattened camera-to-world matrix


def add_lora(unet: torch.nn.Module, rank: int) -> None:
    """Freeze `unet` in place and give it LoRA layers and a camera MLP (ProlificDreamer's conditioning)."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
    width = unet.time_embedding.linear_1.out_features
    unet.class_embedding = TimestepEmbedding(CAMERA_DIM, width).to(unet.device, _trained_dtype(unet.dtype))


def _trained_dtype(dtype: torch.dtype) -> torch.dtype:
    """What trains is kept in single precision, or in double where its network is."""
    return torch.promote_types(dtype, torch.float32)


class LoraAdapter:
    """A UNet of its own whose LoRA layers and camera MLP train, and nothing else."""

    def __init__(
        self,
        unet: torch.nn.Module,  # with add_lora done
        prediction_type: str,
        alphas_cumprod: Tensor,
        counter: Work,
        rank: int,
        seed: int,
        time_ids: Tensor | None = None,
    ) -> None:
        self.denoiser = Denoiser(unet, prediction_type, alphas_cumprod, counter, time_ids)
        self._trained = {name: p for name, p in unet.named_parameters() if p.requires_grad}
        self._reset(rank, seed)

    def _reset(self, rank: int, seed: int) -> None:
        """Down-projections N(0, 1/rank), up-projections zero, camera MLP as PyTorch's Linear."""
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
        """The network's own output (eps or v) with camera [B, 16]; with a graph unless under no_grad."""
        return self.denoiser.predict(x_t, t, text, class_labels=camera)

    def to_eps(self, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """An output of `predict` as noise prediction."""
        return self.denoiser.to_eps(raw, x_t, t)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What `predict` should say for x_t = a_t x0 + s_t eps."""
        return self.denoiser.target(x0, eps, t)

    def parameters(self) -> list[torch.nn.Parameter]:
        """LoRA layers and camera MLP."""
        return list(self._trained.values())

    def lora_parameters(self) -> list[torch.nn.Parameter]:
        """The LoRA layers alone."""
        return [p for name, p in self._trained.items() if "lora_" in name]

    def check_trains(self) -> None:
        """Raise if an up-projection is still zero after an optimiser step: an adapter that silently does not
        train is the fault of TraCe's released code."""
        idle = [name for name, p in self._trained.items() if "lora_B" in name and not bool(p.any())]
        if idle:
            raise TraceBenchError(
                f"{len(idle)} LoRA layers did not change in the first optimiser step, {idle[0]} among them: "
                "the adapter is not being trained; check the method's adapter learning rate."
            )

    def state_dict(self) -> dict[str, Tensor]:
        """LoRA layers and camera MLP by name."""
        return {name: p.detach().clone() for name, p in self._trained.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what `state_dict` gave."""
        for name, parameter in self._trained.items():
            parameter.data.copy_(state[name])
