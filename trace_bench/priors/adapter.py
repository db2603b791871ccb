"""The LoRA network of VSD and TraCe: rank-r LoRA on attention, camera as class embedding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding
from peft import LoraConfig
from torch import Tensor

from trace_bench.priors.base import TextEmbedding, train_alone
from trace_bench.priors.denoiser import Denoiser, trained_dtype
from trace_bench.system.errors import TraceBenchError

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT_TARGETS = ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]  # of a joint attention's text half
CAMERA_DIM = 16  # the flattened camera-to-world matrix
_ALIGNMENT = 16  # numbers; each weight begins at a multiple, like a tensor of its own


class _Linear(torch.nn.Linear):
    """A linear layer that may have one weight for each of L groups of rows: [L, out, in]."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return torch.nn.functional.linear(x, self.weight, self.bias)
        rows = x.reshape(len(self.weight), -1, x.shape[-1])
        weight = self.weight.transpose(1, 2)
        if self.bias is None:
            out = torch.bmm(rows, weight)
        else:
            out = torch.baddbmm(self.bias.unsqueeze(1), rows, weight)
        return out.view(*x.shape[:-1], out.shape[-1])


def add_lora(unet: torch.nn.Module, rank: int) -> None:
    """Freeze `unet` in place and add LoRA layers and a camera MLP (ProlificDreamer's conditioning)."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
    width = unet.time_embedding.linear_1.out_features
    unet.class_embedding = TimestepEmbedding(CAMERA_DIM, width).to(unet.device, trained_dtype(unet.dtype))


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
    transformer.time_text_embed.add_camera(transformer.inner_dim, trained_dtype(transformer.dtype))


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


class LoraNetwork:
    """A frozen network with places for trained weights, which its adapters fill in turn; LoRA layers first.

    The weights of one adapter have the shapes of the layers; those of L adapters have a first dimension L and
    belong to L equal groups of rows.
    """

    def __init__(self, denoiser: Denoiser, add_lora: Callable[[torch.nn.Module, int], None]) -> None:
        self.denoiser = denoiser
        add_lora(self.unet, 1)  # an adapter brings weights of its own rank
        trained = [
            (name, module, parameter)
            for prefix, module in self.unet.named_modules()
            for name, parameter in module.named_parameters(prefix, recurse=False)
            if parameter.requires_grad
        ]
        trained.sort(key=lambda place: "lora_" not in place[0])
        self.places = {name: (module, name.rpartition(".")[2]) for name, module, _ in trained}
        self.shapes = {name: parameter.shape for name, _, parameter in trained}
        self.dtype, self.device = trained_dtype(trained[0][2].dtype), trained[0][2].device
        for _, module, _ in trained:
            module.__class__ = _Linear

    @property
    def unet(self) -> torch.nn.Module:
        """The network."""
        return self.denoiser.unet

    def use(self, weights: Sequence[Tensor]) -> None:
        """Put weights, in the order of `places`, into the network."""
        self.denoiser.use(weights, self._put)

    def _put(self, weights: Sequence[Tensor]) -> None:
        for (module, name), weight in zip(self.places.values(), weights, strict=True):
            module._parameters[name] = weight  # type: ignore[assignment]  # no Parameter if stacked


class _Lower(torch.autograd.Function):
    """Weights in a lower dtype, and their gradients in their own: one conversion each way for all layers.

    A layer alone would convert its input and output, and multiply in float32.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, flat: Tensor, dtype: torch.dtype, begins: Sequence[int], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.dtype = flat.dtype
        low = flat.to(dtype)
        return tuple(low[a : a + w.numel()].view(w.shape) for a, w in zip(begins, weights, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        sizes = [grad.numel() for grad in grads]
        parts = torch.cat([grad.reshape(-1) for grad in grads]).to(ctx.dtype).split(sizes)
        return (None, None, None, *(part.view(g.shape) for part, g in zip(parts, grads, strict=True)))


class LoraAdapter:
    """The weights of one run for a `LoraNetwork`: LoRA layers and the camera MLP."""

    def __init__(self, network: LoraNetwork, rank: int, seed: int) -> None:
        self.network, self.rank, self.denoiser = network, rank, network.denoiser
        shapes = [self._shape(name) for name in network.places]
        ends = torch.tensor([-(-shape.numel() // _ALIGNMENT) * _ALIGNMENT for shape in shapes]).cumsum(0)
        self._begins = [0, *ends.tolist()[:-1]]
        self.flat = torch.zeros(int(ends[-1]), dtype=network.dtype, device=network.device)
        self._trained = {
            name: torch.nn.Parameter(self.flat[begin : begin + shape.numel()].view(shape))
            for name, begin, shape in zip(network.places, self._begins, shapes, strict=True)
        }
        self._reset(rank, seed)
        network.use(self.parameters())

    def _shape(self, name: str) -> torch.Size:
        shape = self.network.shapes[name]
        if "lora_A" in name:
            return torch.Size([self.rank, shape[1]])
        return torch.Size([shape[0], self.rank]) if "lora_B" in name else shape

    def _reset(self, rank: int, seed: int) -> None:
        """Down-projections normal with std 1/rank, up-projections zero, camera MLP like PyTorch's Linear."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self._trained.items():
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
        self.network.use(self._lowered())
        return self.denoiser.predict(x_t, t, text, camera)

    def _lowered(self) -> Sequence[Tensor]:
        """The parameters, LoRA layers in the network's dtype: one copy for all layers."""
        parameters, dtype = self.parameters(), self.network.unet.dtype
        if dtype == self.flat.dtype:
            return parameters
        n = len(self.lora_parameters())
        flat = self.flat[: self._lora_end]
        return [*_Lower.apply(flat, dtype, self._begins[:n], *parameters[:n]), *parameters[n:]]

    @property
    def _lora_end(self) -> int:
        """Where the LoRA layers end in `flat`; the camera MLP follows."""
        return self._begins[len(self.lora_parameters())]

    def train(
        self,
        x_t: Tensor,
        t: Tensor,
        text: TextEmbedding,
        camera: Tensor,
        loss: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Set each parameter's `grad` to that of `loss`, a function of the raw output; returns both,
        without a graph."""
        return train_alone(self, x_t, t, text, camera, loss)

    @staticmethod
    def predict_together(
        adapters: Sequence[LoraAdapter], x_t: Tensor, t: Tensor, text: TextEmbedding, camera: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The raw outputs [L B, C, h, w] of L adapters of one network and rank, each for B rows, and their
        stacked weights (LoRA layers in the network's dtype), which stay in the network until another adapter
        is used; the outputs have a graph to the weights unless under no_grad."""
        first, n = adapters[0], len(adapters)
        stacked = torch.stack([adapter.flat for adapter in adapters])
        low = stacked[:, : first._lora_end].to(first.network.unet.dtype)
        weights = [
            (low if begin < first._lora_end else stacked)[:, begin : begin + p.numel()].view(n, *p.shape)
            for begin, p in zip(first._begins, first.parameters(), strict=True)
        ]
        first.network.use([weight.requires_grad_() for weight in weights])
        return first.denoiser.predict(x_t, t, text, camera), weights

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
