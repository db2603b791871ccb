"""Answers the calls of several lanes with few calls of the networks they share."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trace_bench.priors.adapter import LoraAdapter
from trace_bench.priors.base import Prior, TextEmbedding
from trace_bench.priors.lanes.sizes import candidates, padded_size, probed, remembered
from trace_bench.priors.lanes.turns import Call

Output = tuple[Tensor, ...]  # of one unit
Loss = Callable[[Tensor], Tensor]

#: Places of the kinds of calls in a step. Decoding is part of no step, and must not wait for those that are.
DECODE, ENCODE, EPS, PREDICT, TRAIN, PULL_BACK = range(6)

#: What a batch costs beside its units, in units. The encoder's operations are large, so it hardly matters how
#: many pictures are in a batch.
_BATCH_COSTS, _ENCODE_COSTS = 3.0, 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """A row of a batch: tensors whose first dimension is 1."""

    tensors: tuple[Tensor, ...]

    def varied(self, generator: torch.Generator) -> Item:
        """The same with other numbers, for a probe."""
        return Item(tuple(_varied(tensor, generator) for tensor in self.tensors))


@dataclass(frozen=True)
class AdapterRows:
    """Rows for the adapter of one lane, and what it is trained on, if it is."""

    adapter: LoraAdapter
    tensors: tuple[Tensor, ...]  # x_t, t, tokens, camera and perhaps pooled; each [B, ...]
    loss: Loss | None

    def varied(self, generator: torch.Generator) -> AdapterRows:
        """Other weights and numbers, and a plain loss, for a probe."""
        adapter = copy.copy(self.adapter)
        adapter.flat = _varied(adapter.flat, generator)
        tensors = tuple(_varied(tensor, generator) for tensor in self.tensors)
        return AdapterRows(adapter, tensors, None if self.loss is None else _square)


def _square(raw: Tensor) -> Tensor:
    return raw.square().mean()


def _varied(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return tensor + 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch of pictures that was encoded together, with its graph."""

    pixels: Tensor
    latents: Tensor


@dataclass(frozen=True)
class Pull:
    """A gradient of some rows of an `Encoded`."""

    encoded: Encoded
    rows: list[int]
    grad: Tensor


def joined(rows: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Concatenated along the first dimension, in the default memory format: else it would follow from the
    rows, and networks compute other bits in other formats."""
    return [torch.cat([tensor.contiguous() for tensor in column]) for column in zip(*rows, strict=True)]


class Batcher:
    """Merges calls of a prior's networks; the results do not depend on which calls are merged."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self._threads = torch.get_num_threads()
        self._sizes: dict[tuple[Any, ...], tuple[int, ...]] = {}

    @property
    def sizes(self) -> dict[str, list[int]]:
        """The sizes of the batches so far, in rows, by the kind of call."""
        found: dict[str, set[int]] = {}
        for (name, rows, *_), sizes in self._sizes.items():
            label = name if rows == 1 else f"{name}, {rows} rows a run"
            found.setdefault(label, set()).update(size * rows for size in sizes)
        return {name: sorted(sizes) for name, sizes in sorted(found.items())}

    def answer(self, calls: Sequence[Call]) -> None:
        """Fill in results or errors of calls of one rank."""
        if torch.get_num_threads() != self._threads:  # that of the lane that had its turn last
            torch.set_num_threads(self._threads)
        if calls[0].rank == PULL_BACK:
            self._pull_back(calls)
            return
        groups: dict[Hashable, list[Call]] = {}
        for call in calls:
            groups.setdefault(call.key, []).append(call)
        for group in groups.values():
            try:
                self._answer_group(group)
            except Exception as error:  # noqa: BLE001  a probe that fails: raised in their lanes
                for call in group:
                    call.fail(error)

    def _answer_group(self, calls: Sequence[Call]) -> None:
        sizes = self._sizes_of(calls[0])
        for chunk in _chunks(calls, sizes):
            if len(chunk) > 1 and self._answer_together(chunk, sizes):
                continue
            for call in chunk:
                try:
                    self._answer_chunk([call], sizes)
                except Exception as error:  # noqa: BLE001  raised in its lane
                    call.fail(error)

    def _answer_together(self, calls: Sequence[Call], sizes: tuple[int, ...]) -> bool:
        """Whether it worked; if not, nothing holds the memory of the batch any more."""
        try:
            self._answer_chunk(calls, sizes)
        except Exception as error:  # noqa: BLE001  whose call it is turns out when they are answered alone
            what = f"{type(error).__name__}: {error}"
            log.warning("%d runs are answered one by one in this step. %s", len(calls), what)
            return False
        return True

    def _answer_chunk(self, calls: Sequence[Call], sizes: tuple[int, ...]) -> None:
        if not sizes or len(calls[0].units) > sizes[-1]:
            for call in calls:
                call.result = call.alone()
            return
        units = [unit for call in calls for unit in call.units]
        size = padded_size(len(units), sizes)
        padding = [units[i % len(units)] for i in range(size - len(units))]
        outputs = self._evaluate(calls[0], [*units, *padding])
        begin = 0
        for call in calls:
            end = begin + len(call.units)
            call.result = call.assemble(outputs[begin:end])
            begin = end

    def _sizes_of(self, call: Call) -> tuple[int, ...]:
        if call.key not in self._sizes:
            tried = candidates(call.key[1])
            if tried and self.prior.device.type == "cpu":
                generator = torch.Generator().manual_seed(0)
                units = [call.units[0].varied(generator) for _ in range(tried[-1])]
                tried = remembered(
                    [*call.key, self._networks(call)],
                    lambda: probed(lambda some: self._evaluate(call, some, is_probe=True), units, tried),
                )
            elif getattr(self.prior, "compile", False):
                for size in tried:  # torch compiles for all of them now, while a warm-up shares what it makes
                    self._evaluate(call, [call.units[0]] * size, is_probe=True)
            self._sizes[call.key] = tried
        return self._sizes[call.key]

    def _networks(self, call: Call) -> str:
        """What the networks are, for the memory of a probe."""
        of = getattr(self.prior, "sha256", None)
        about = ("latent_shape", "resolution", "dtype", "vae_dtype", "compile", "gradient_checkpointing")
        kind = " ".join(str(getattr(self.prior, name, None)) for name in about)
        kind = f"{type(self.prior).__qualname__} {kind}"
        return kind if of is None else f"{kind} {of(call.rank in (PREDICT, TRAIN))}"

    def _evaluate(self, call: Call, units: Sequence[Any], is_probe: bool = False) -> list[Any]:
        """The outputs of units of calls like `call`."""
        if call.rank == ENCODE:
            encoded = self._encode(units)
            if is_probe:
                generator = torch.Generator().manual_seed(1)
                like = _varied(torch.zeros_like(encoded.latents[:1]), generator).expand_as(encoded.latents)
                grad = self.prior.encode_backward(encoded.pixels, encoded.latents, like.contiguous())
                return [(encoded.latents[i].detach(), grad[i]) for i in range(len(units))]
            return [(encoded, i) for i in range(len(units))]
        if call.rank == DECODE:
            (latents,) = joined([unit.tensors for unit in units])
            return [(row.clone(),) for row in self.prior.decode(latents).contiguous().split(1)]
        if call.rank == EPS:
            x, level, *text = joined([unit.tensors for unit in units])
            predict = getattr(self.prior, call.key[0])  # eps, or the velocity of a flow
            found: Tensor = predict(x, level, TextEmbedding(*text))
            return [(row.clone(),) for row in found.contiguous().split(1)]
        return _trained(units) if call.rank == TRAIN else _predicted(units)

    def _encode(self, units: Sequence[Item]) -> Encoded:
        pixels, noise = joined([unit.tensors for unit in units])
        with torch.enable_grad():
            return Encoded(pixels.requires_grad_(), self.prior.encode(pixels, noise))

    def _pull_back(self, calls: Sequence[Call]) -> None:
        """Gradients through batches that were encoded together; rows that nobody asks for have none."""
        batches: dict[Encoded, list[Call]] = {}
        for call in calls:
            batches.setdefault(call.units[0].encoded, []).append(call)
        for encoded, asked in batches.items():
            grad = torch.zeros_like(encoded.latents)
            for call in asked:
                grad[call.units[0].rows] = call.units[0].grad
            pulled = self.prior.encode_backward(encoded.pixels, encoded.latents, grad, keep=True)
            for call in asked:
                call.result = call.assemble([pulled[call.units[0].rows]])


def _chunks(calls: Sequence[Call], sizes: Sequence[int]) -> list[list[Call]]:
    """Calls that fit into one batch, so that all batches together cost least: full ones of one of the sizes
    and a rest, or as few as possible of about one size.
    """
    most = sizes[-1] if sizes else 1
    total = sum(len(call.units) for call in calls)
    ways = [_filled(calls, most, wanted) for wanted in (most, total / -(-total // most))]
    ways += [_filled(calls, size, size) for size in reversed(sizes[:-1])]
    each = _ENCODE_COSTS if calls[0].rank == ENCODE else _BATCH_COSTS
    return min(ways, key=lambda chunks: sum(each + _padded(chunk, sizes) for chunk in chunks))


def _padded(calls: Sequence[Call], sizes: Sequence[int]) -> int:
    units = sum(len(call.units) for call in calls)
    return padded_size(units, sizes) if sizes and units <= sizes[-1] else units


def _filled(calls: Sequence[Call], most: int, wanted: float) -> list[list[Call]]:
    """Batches of `wanted` units or a little more, at most `most`; a larger call is a batch of its own."""
    chunks: list[list[Call]] = []
    filled = most
    for call in calls:
        n = len(call.units)
        if filled + n > most or filled >= wanted:
            chunks.append([])
            filled = 0
        chunks[-1].append(call)
        filled += n
    return chunks


def _adapter_inputs(units: Sequence[AdapterRows]) -> tuple[Tensor, Tensor, TextEmbedding, Tensor]:
    x_t, t, tokens, camera, *pooled = joined([unit.tensors for unit in units])
    return x_t, t, TextEmbedding(tokens, *pooled), camera


@torch.no_grad()
def _predicted(units: Sequence[AdapterRows]) -> list[Output]:
    adapters = [unit.adapter for unit in units]
    raw, _ = LoraAdapter.predict_together(adapters, *_adapter_inputs(units))
    _forget_stack(adapters[0])
    return [(rows.clone(),) for rows in raw.contiguous().chunk(len(units))]


def _forget_stack(adapter: LoraAdapter) -> None:
    """Take stacked weights out of the network, so that their memory is free."""
    adapter.network.use(adapter.parameters())


def _trained(units: Sequence[AdapterRows]) -> list[Any]:
    """Output, loss and gradients of each unit. A loss that fails is the error of its unit alone."""
    adapters = [unit.adapter for unit in units]
    with torch.enable_grad():
        raw, weights = LoraAdapter.predict_together(adapters, *_adapter_inputs(units))
    outputs = [rows.clone() for rows in raw.detach().contiguous().chunk(len(units))]
    losses: list[Tensor] = []
    grads: list[Tensor] = []
    for unit, output in zip(units, outputs, strict=True):
        assert unit.loss is not None
        with torch.enable_grad():
            leaf = output.detach().requires_grad_()
            loss = unit.loss(leaf)
        losses.append(loss.detach())
        grads.append(torch.autograd.grad(loss, leaf)[0].contiguous())
    found = torch.autograd.grad(raw, weights, torch.cat(grads))  # may call the network again
    _forget_stack(adapters[0])
    dtype = adapters[0].flat.dtype
    return [
        (output, loss, *(grad[i].to(dtype).contiguous() for grad in found))
        for i, (output, loss) in enumerate(zip(outputs, losses, strict=True))
    ]
