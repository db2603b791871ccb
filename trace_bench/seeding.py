"""Named random draws that depend only on (seed, step, purpose, item).

A resumed run therefore gets the same draws as an uninterrupted one, and item `i` of a batch gets the same
draw for any batch size. Draws are made on the CPU, so that they are equal on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
        rows = [
            torch.randn(tuple(shape[1:]), generator=self.generator(purpose, i), dtype=dtype)
            for i in range(shape[0])
        ]
        return torch.stack(rows).to(device, non_blocking=True)

    def uniform(
        self,
        purpose: str,
        shape: Sequence[int],  # [B, ...]
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Uniform draws in [0, 1), one generator per item."""
        rows = [
            torch.rand(tuple(shape[1:]), generator=self.generator(purpose, i), dtype=dtype)
            for i in range(shape[0])
        ]
        return torch.stack(rows).to(device, non_blocking=True)

    def randint(
        self, purpose: str, low: int, high: int, n: int, device: torch.device | str | None = None
    ) -> Tensor:
        """`n` integers in [low, high), upper end exclusive as in torch: int64 [n]."""
        rows = [torch.randint(low, high, (), generator=self.generator(purpose, i)) for i in range(n)]
        return torch.stack(rows).to(device, non_blocking=True)

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
