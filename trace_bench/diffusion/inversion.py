"""DDIM inversion: the hop between two noise levels, and the timestep grids of SDI, ISM and TSM.

A level is the pair (a_t, s_t) of scalars or [B, 1, 1, 1] tensors. Timesteps shared by a whole batch are
Python integers, so that no method has to wait for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor

from trace_bench.diffusion.schedules import add_noise, eps_to_x0
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError

Level = tuple[Tensor, Tensor]


def level(alphas_cumprod: Tensor, t: int) -> Level:
    """(a_t, s_t) as scalars; for t < 0, where SDI's grid begins, the schedule's first value."""
    abar = alphas_cumprod[max(t, 0)]
    return abar.sqrt(), (1.0 - abar).sqrt()


def timestep(t: int, x: Tensor) -> Tensor:
    """`t` for each sample of `x`: int64 [B]."""
    return torch.full((x.shape[0],), t, device=x.device)


def ddim_hop(x_u: Tensor, eps: Tensor, u: Level, v: Level) -> Tensor:
    """x_v = a_v (x_u - s_u eps) / a_u + s_v eps, up or down in noise (Song et al. 2021, DDIM, eta = 0)."""
    return add_noise(eps_to_x0(x_u, eps, *u), eps, *v)


def ddim_std(u: Level, v: Level) -> Tensor:
    """Standard deviation of DDPM's posterior for levels u < v: sqrt((s_u / s_v)^2 (1 - (a_v / a_u)^2))."""
    (a_u, s_u), (a_v, s_v) = u, v
    return (s_u / s_v) * (1.0 - (a_v / a_u) ** 2).sqrt()


def ddim_invert(
    x: Tensor,  # [B, C, h, w] at the first timestep
    timesteps: Sequence[int],
    alphas_cumprod: Tensor,
    predict: Callable[[Tensor, Tensor], Tensor],
    noise: Callable[[int], Tensor | None] = lambda u: None,
) -> Tensor:
    """Hop from the first timestep to the last with predict(x, t) = eps; [B, C, h, w].

    noise(u) is added at the hop from u, in units of `ddim_std`: eta xi for eta > 0, None for a pure hop.
    """
    for u, v in pairwise(timesteps):
        at_u, at_v = level(alphas_cumprod, u), level(alphas_cumprod, v)
        x = ddim_hop(x, predict(x, timestep(u, x)), at_u, at_v)
        extra = noise(u)
        if extra is not None:
            x = x + ddim_std(at_u, at_v) * extra
    return x


def sdi_timesteps(
    t: int, overshoot: int, n_steps: int = 10, total: int = 1000, first: bool = True
) -> list[int]:
    """SDI's grid up to min(t + overshoot, total - 1): 1 - total / n_steps (if `first`), then those of 1,
    1 + total / n_steps, ... that are below t."""
    stride = total // n_steps
    below = [u for u in range(1, total, stride) if u < t]
    return [*([1 - stride] if first else []), *below, min(t + overshoot, total - 1)]


@dataclass(frozen=True)
class Interval:
    """Timesteps s < t of ISM and TSM (s = t if t is the lowest)."""

    s: int
    t: int

    def between(self, gamma: float) -> int:
        """TSM's third point: s + (t - s) sqrt(1 - gamma^2), rounded (Miao et al. 2024)."""
        return self.s + round((self.t - self.s) * math.sqrt(1.0 - gamma**2))


@dataclass(frozen=True)
class IntervalSchedule:
    """LucidDreamer's intervals: all numbers except `warmup` are timesteps of 1000.

    t is uniform in [t_min, t_max), and s is `delta` lower. The run starts with t_max_start and delta_start,
    which shrink linearly to t_max and delta over the first `warmup` of the run. z is inverted up to s in hops
    of `stride`.
    """

    t_min: int = 20
    t_max: int = 500
    t_max_start: int = 980
    delta: int = 80
    delta_start: int = 100
    warmup: float = 0.3
    stride: int = 200

    @classmethod
    def of(cls, settings: Mapping[str, float] | None) -> IntervalSchedule:
        """From a method's `interval` setting; missing fields keep their defaults."""
        known = [f.name for f in fields(cls)]
        for key in settings or {}:
            if key not in known:
                raise TraceBenchError(f"method.interval.{key} is not one of {', '.join(known)}.")
        return cls(**(settings or {}))  # type: ignore[arg-type]

    def rate(self, progress: Progress) -> float:
        """Falls from 1 before the run to 0 at the end of the warm-up; LucidDreamer counts steps from 1."""
        return max(0.0, 1.0 - (progress.k + 1) / (self.warmup * progress.n)) if self.warmup else 0.0

    def upper(self, progress: Progress) -> int:
        """Exclusive upper end of the index of t."""
        return self.t_max + int((self.t_max_start - self.t_max) * self.rate(progress))

    def gap(self, progress: Progress, round_up: bool = False) -> int:
        """t - s; LucidDreamer rounds it down, its Perp-Neg branch up."""
        grown = self.rate(progress) * (self.delta_start - self.delta)
        return self.delta + (math.ceil(grown) if round_up else int(grown))

    def draw(self, progress: Progress, rng: StepRng, round_up: bool = False) -> Interval:
        """One interval for the whole batch. An index in the 1000-step grid is the UNet's timestep minus 1."""
        index = int(rng.randint("t", self.t_min, self.upper(progress), 1))
        return Interval(max(index - self.gap(progress, round_up), 0) + 1, index + 1)

    def timesteps(self, s: int) -> list[int]:
        """The grid from the lowest timestep to s; the last hop is shorter."""
        return [*range(1, s, self.stride), s]


def offset_noise(shape: Sequence[int], offset: float, rng: StepRng, like: Tensor) -> Tensor:
    """N(0, 1) plus `offset` times one N(0, 1) draw per channel, shared by the batch: [B, C, h, w]."""
    noise = rng.randn("eps", shape, like.device, like.dtype)
    if offset == 0.0:
        return noise
    return noise + offset * rng.randn("eps_offset", (1, shape[1], 1, 1), like.device, like.dtype)
