"""Named random draws that depend only on (seed, step, purpose, item).

A resumed run therefore gets the same draws as an uninterrupted one, and item `i` of a batch gets the same
draw for any batch size. Draws are made on the CPU, so that they are equal on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from trace_bench.system.transfer import send


class Request(NamedTuple):
    """What is drawn."""

    kind: Literal["randn", "rand", "randint"]
    purpose: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    limits: tuple[int, int] = (0, 0)  # of randint


@dataclass(frozen=True)
class StepRng:
    """The random draws of one step of a run."""

    seed: int
    step: int

    def generator(self, purpose: str, item: int = 0) -> torch.Generator:
        """A separate CPU generator for `purpose` and batch item `item`."""
        key = f"{self.seed}/{self.step}/{purpose}/{item}".encode()
        state = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
        return torch.Generator().manual_seed(state)

    def randn(
        self,
        purpose: str,
        shape: Sequence[int],  # [B, ...]
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Standard normal draws, one generator per item."""
        return self._draw(Request("randn", purpose, tuple(shape), dtype), device)

    def uniform(
        self,
        purpose: str,
        shape: Sequence[int],  # [B, ...]
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Uniform draws in [0, 1), one generator per item."""
        return self._draw(Request("rand", purpose, tuple(shape), dtype), device)

    def randint(
        self, purpose: str, low: int, high: int, n: int, device: torch.device | str | None = None
    ) -> Tensor:
        """`n` integers in [low, high), upper end exclusive as in torch: int64 [n]."""
        return self._draw(Request("randint", purpose, (n,), torch.int64, (low, high)), device)

    def _draw(self, request: Request, device: torch.device | str | None) -> Tensor:
        drawn = self.make(request)
        return drawn if device is None else send([drawn], device)[0]

    def make(self, request: Request) -> Tensor:
        """The draws, on the CPU."""
        rows, shape = [], request.shape[1:]
        for i in range(request.shape[0]):
            generator = self.generator(request.purpose, i)
            if request.kind == "randn":
                rows.append(torch.randn(shape, generator=generator, dtype=request.dtype))
            elif request.kind == "rand":
                rows.append(torch.rand(shape, generator=generator, dtype=request.dtype))
            else:
                rows.append(torch.randint(*request.limits, shape, generator=generator))
        return torch.stack(rows)

    def chance(self, purpose: str, probability: float) -> bool:
        """One draw for the whole batch; true with `probability`."""
        return bool(torch.rand((), generator=self.generator(purpose)) < probability)


@dataclass(frozen=True)
class Rng:
    """The random draws of one run, by step."""

    seed: int

    def at(self, step: int) -> StepRng:
        """The draws of 0-based step `step`; -1 stands for everything before the first step."""
        return StepRng(self.seed, step)


@dataclass(frozen=True)
class PreparedRng(StepRng):
    """The draws of a step, of which some are on the device already.

    ready: those, each used once. asked: filled with what the step asks for on the device.
    """

    ready: dict[Request, Tensor] = field(default_factory=dict, compare=False)
    asked: list[Request] = field(default_factory=list, compare=False)

    def _draw(self, request: Request, device: torch.device | str | None) -> Tensor:
        if device is None:
            return self.make(request)
        self.asked.append(request)
        ready = self.ready.pop(request, None)
        return super()._draw(request, device) if ready is None else ready


class StepData:
    """Brings what a step needs to a GPU at its beginning, in one transfer: given tensors, and the draws that
    the step before asked for. The host does not wait, so the GPU goes on with earlier steps meanwhile. On a
    CPU, nothing is prepared."""

    def __init__(self, rng: Rng, device: torch.device) -> None:
        self.rng, self.device = rng, device
        self._asked: list[Request] = []

    def at(self, step: int, tensors: Sequence[Tensor]) -> tuple[list[Tensor], StepRng]:
        """The tensors on the device, and the draws of the step."""
        rng = self.rng.at(step)
        if self.device.type == "cpu":
            return list(tensors), rng
        requests = list(dict.fromkeys(self._asked))
        sent = send([*tensors, *map(rng.make, requests)], self.device)
        ready = dict(zip(requests, sent[len(tensors) :], strict=True))
        prepared = PreparedRng(rng.seed, rng.step, ready)
        self._asked = prepared.asked
        return sent[: len(tensors)], prepared
