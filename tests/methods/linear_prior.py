"""A prior of scalars with given predictions, for values computed by hand: the setting of the check values.

z = 0.7, eps = -0.3; prompt 0.6 x + 0.1, negative text 0.4 x - 0.2, empty text 0.5 x, for every t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from trace_bench.cameras import make_cameras
from trace_bench.methods.base import Distilled, Method
from trace_bench.priors.analytic import AnalyticPrior, Gaussian
from trace_bench.priors.base import TextEmbedding
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng

Z, EPS = 0.7, -0.3
LINES = {"y": (0.6, 0.1), "negative": (0.4, -0.2), "": (0.5, 0.0)}
ONE = (1, 1, 1)


def normal(mean: float, std: float) -> Gaussian:
    """N(mean, std^2) of one number."""
    return Gaussian(torch.tensor([mean], dtype=torch.float64), torch.tensor([[std**2]], dtype=torch.float64))


class ByName(AnalyticPrior):
    """Texts "y", "negative" and ""; a text with the word "source" is the negative one."""

    def __init__(self) -> None:
        super().__init__({"y": normal(1, 0.5), "negative": normal(-0.5, 0.8), "": normal(0, 1)}, ONE)

    def _index(self, text: str) -> int:
        return super()._index("negative" if "source" in text else text)


class LinearPrior(ByName):
    """The predictions of LINES in place of the exact ones."""

    def eps(self, latents: Tensor, t: Tensor, text: TextEmbedding) -> Tensor:
        self.counter.unet_fwd += len(latents)
        gain, shift = torch.tensor(list(LINES.values()), dtype=self.dtype)[
            text.tokens[:, 0, 0].round().long()
        ].T
        return gain.view(-1, 1, 1, 1) * latents + shift.view(-1, 1, 1, 1)


class FixedRng(StepRng):
    """Every normal draw is `EPS` (offsets are 0), and a draw of an integer is that of `integers`."""

    integers: ClassVar[dict[str, int]] = {}

    def randn(
        self,
        purpose: str,
        shape: Sequence[int],
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        value = 0.0 if purpose == "eps_offset" else EPS
        return torch.full(tuple(shape), value, dtype=dtype)

    def randint(
        self, purpose: str, low: int, high: int, n: int, device: torch.device | str | None = None
    ) -> Tensor:
        return torch.full((n,), self.integers.get(purpose, low))


def drawing(**integers: int) -> FixedRng:
    """The given integers; the lowest of the range elsewhere."""
    rng = FixedRng(0, 0)
    object.__setattr__(rng, "integers", integers)
    return rng


def at(t: int) -> dict[str, float]:
    """Settings of a range of t that holds only `t`."""
    return {"min_step_percent": t / 1000, "max_step_percent": t / 1000}


def answer(
    method: Method, z: float = Z, progress: Progress | None = None, rng: StepRng | None = None
) -> Distilled:
    """The method's answer at one latent `z`."""
    zero = torch.zeros(1)
    view = make_cameras(zero, zero, zero + 2.0, zero + 45.0, 1, 1)
    latents = torch.full((1, *ONE), z, dtype=torch.float64)
    return method.step(latents, method.embed("y"), view, progress or Progress(0, 10), rng or drawing())


def gradient(
    method: Method, z: float = Z, progress: Progress | None = None, rng: StepRng | None = None
) -> float:
    """The gradient of `answer`."""
    return answer(method, z, progress, rng).grad.item()
