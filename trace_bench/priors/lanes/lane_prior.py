"""A lane's view of the prior that it shares: the same answers, merged with those of other lanes, and its own
count of the work."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trace_bench.priors.adapter import LoraAdapter
from trace_bench.priors.base import (
    Adapter,
    TextEmbedding,
    Work,
    guided,
    train_alone,
)
from trace_bench.priors.lanes.batcher import (
    DECODE,
    ENCODE,
    EPS,
    PREDICT,
    PULL_BACK,
    TRAIN,
    AdapterRows,
    Batcher,
    Encoded,
    Item,
    Pull,
)
from trace_bench.priors.lanes.turns import Call, Seat


class LanePrior:
    """A `Prior` for one run. Padded rows and the rows of others are no work of this run.

    Args:
        batcher: of the shared prior.
        seat: the lane's place among the others.
        is_batched: False answers every call alone, as without lanes: for a run that was begun so.
    """

    def __init__(self, batcher: Batcher, seat: Seat, is_batched: bool) -> None:
        self.shared, self._batcher = batcher.prior, batcher
        self.counter = Work()
        self.adapters_made = 0
        self._seat, self.is_batched = seat, is_batched
        self._batches: dict[int, tuple[Encoded, list[int]]] = {}  # of encoded latents, by their id

    def __getattr__(self, name: str) -> Any:
        """Schedule, shapes, texts and description are those of the shared prior."""
        return getattr(self.shared, name)

    def eps(self, latents: Tensor, t: Tensor, text: TextEmbedding) -> Tensor:
        """Noise prediction [B, C, h, w], without a graph."""
        self.counter.unet_fwd += len(latents)
        alone = lambda: self.shared.eps(latents, t, text)  # noqa: E731
        return self._ask(EPS, "eps", (latents.detach(), t, *_tensors(text)), alone)

    def velocity(self, x_sigma: Tensor, sigma: Tensor, text: TextEmbedding) -> Tensor:
        """The velocity [B, C, h, w] of a flow prior at noise levels sigma [B], without a graph."""
        self.counter.unet_fwd += len(x_sigma)
        alone = lambda: self.shared.velocity(x_sigma, sigma, text)  # type: ignore[attr-defined]  # noqa: E731
        return self._ask(EPS, "velocity", (x_sigma.detach(), sigma, *_tensors(text)), alone)

    def eps_cfg(
        self,
        latents: Tensor,
        t: Tensor,
        cond: TextEmbedding,
        uncond: TextEmbedding,
        guidance_scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Guided, conditional and unconditional prediction from one call of 2 B items."""
        return guided(self.eps, latents, t, cond, uncond, guidance_scale)

    def encode(self, rgb: Tensor, noise: Tensor) -> Tensor:
        """Latents [B, C, h, w]; for their gradient use `encode_backward`, except without other lanes."""
        self.counter.vae_enc_fwd += len(rgb)
        if not self.is_batched or (rgb.requires_grad and not rgb.is_leaf):
            latents = self.shared.encode(rgb, noise)
            if latents.requires_grad and not rgb.is_leaf:
                latents.register_hook(self._count_encoder_backward)
            return latents

        def assemble(outputs: list[Any]) -> Tensor:
            encoded, rows = outputs[0][0], [row for _, row in outputs]
            latents = encoded.latents.detach()[rows]
            self._batches[id(latents)] = encoded, rows
            weakref.finalize(latents, self._batches.pop, id(latents), None)
            return latents

        alone = lambda: self.shared.encode(rgb, noise)  # noqa: E731
        return self._ask(ENCODE, "encode", (rgb.detach(), noise), alone, assemble)

    def _count_encoder_backward(self, grad: Tensor) -> None:
        self.counter.vae_enc_bwd += len(grad)

    def encode_backward(self, rgb: Tensor, latents: Tensor, grad: Tensor, keep: bool = False) -> Tensor:
        """The gradient in rgb that belongs to `grad` in latents = encode(rgb, noise)."""
        self.counter.vae_enc_bwd += len(grad)
        if id(latents) not in self._batches:
            return self.shared.encode_backward(rgb, latents, grad, keep)
        pull = Pull(*self._batches[id(latents)], grad)
        answer = self._batcher.answer
        return self._seat.ask(Call(answer, PULL_BACK, ("pull back",), [pull], _never, _only))

    def decode(self, latents: Tensor) -> Tensor:
        """rgb [B, 3, H, W] in [0, 1]."""
        self.counter.vae_dec += len(latents)
        return self._ask(DECODE, "decode", (latents.detach(),), lambda: self.shared.decode(latents))

    def adapter(self, rank: int, seed: int) -> Adapter:
        """A new adapter, merged with those of other lanes if it is a LoRA."""
        self.adapters_made += 1
        adapter = self.shared.adapter(rank, seed)
        return LaneAdapter(adapter, self.counter, self._seat, self._batcher if self.is_batched else None)

    def _ask(
        self,
        rank: int,
        name: str,
        tensors: tuple[Tensor, ...],
        alone: Callable[[], Tensor],
        assemble: Callable[[list[Any]], Tensor] | None = None,
    ) -> Tensor:
        """The answer for the rows of `tensors`."""
        if not self.is_batched:
            return alone()
        units = [Item(tuple(tensor[i : i + 1] for tensor in tensors)) for i in range(len(tensors[0]))]
        key = (name, 1, *_forms(units[0].tensors))
        return self._seat.ask(Call(self._batcher.answer, rank, key, units, alone, assemble or _rows))


class LaneAdapter:
    """An adapter of one lane. Prediction without a graph and training are merged."""

    def __init__(self, adapter: Adapter, counter: Work, seat: Seat, batcher: Batcher | None) -> None:
        self._adapter, self._counter, self._seat, self._batcher = adapter, counter, seat, batcher
        self._lora = adapter if batcher is not None and isinstance(adapter, LoraAdapter) else None

    def __getattr__(self, name: str) -> Any:
        """Parameters, state and conversions are the adapter's."""
        return getattr(self._adapter, name)

    def predict(self, x_t: Tensor, t: Tensor, text: TextEmbedding, camera: Tensor) -> Tensor:
        """The network's raw output; has a graph unless under no_grad, and is then not merged."""
        self._counter.unet_fwd += len(x_t)
        if torch.is_grad_enabled() or self._lora is None:
            raw = self._adapter.predict(x_t, t, text, camera)
            if raw.requires_grad:
                raw.register_hook(self._count_backward)
            return raw
        alone = lambda: self._adapter.predict(x_t, t, text, camera)  # noqa: E731
        unit = AdapterRows(self._lora, (x_t, t, text.tokens, camera, *_pooled(text)), None)
        return self._ask(PREDICT, "predict", unit, torch.no_grad()(alone), _rows)

    def train(
        self,
        x_t: Tensor,
        t: Tensor,
        text: TextEmbedding,
        camera: Tensor,
        loss: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Set the `grad` of each parameter; returns output and loss."""
        self._counter.unet_fwd += len(x_t)
        self._counter.unet_bwd += len(x_t)
        if self._lora is None:
            return self._adapter.train(x_t, t, text, camera, loss)
        lora = self._lora
        unit = AdapterRows(lora, (x_t, t, text.tokens, camera, *_pooled(text)), loss)

        def assemble(outputs: list[Any]) -> tuple[Tensor, Tensor]:
            ((raw, value, *grads),) = outputs
            for parameter, grad in zip(lora.parameters(), grads, strict=True):
                parameter.grad = grad
            return raw, value

        alone = lambda: train_alone(lora, x_t, t, text, camera, loss)  # noqa: E731
        return self._ask(TRAIN, "train", unit, alone, assemble)

    def _ask(
        self,
        rank: int,
        name: str,
        unit: AdapterRows,
        alone: Callable[[], Any],
        assemble: Callable[[list[Any]], Any],
    ) -> Any:
        """The answer for this lane's rows."""
        assert self._batcher is not None
        key = (name, len(unit.tensors[0]), unit.adapter.rank, *_forms(unit.tensors))
        return self._seat.ask(Call(self._batcher.answer, rank, key, [unit], alone, assemble))

    def _count_backward(self, grad: Tensor) -> None:
        self._counter.unet_bwd += len(grad)


def _forms(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Shape and type of a unit; only equal ones fit into one batch."""
    return tuple((tuple(tensor.shape), str(tensor.dtype)) for tensor in tensors)


def _tensors(text: TextEmbedding) -> tuple[Tensor, ...]:
    return (text.tokens, *_pooled(text))


def _pooled(text: TextEmbedding) -> tuple[Tensor, ...]:
    return () if text.pooled is None else (text.pooled,)


def _rows(outputs: list[Any]) -> Tensor:
    return torch.cat([output for (output,) in outputs])


def _only(outputs: list[Any]) -> Any:
    (output,) = outputs
    return output


def _never() -> Any:
    raise AssertionError("gradients of encoded pictures are always asked for together")
