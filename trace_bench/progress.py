"""Progress of a run, and settings that change over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """0-based step `k` of a run of `n` steps."""

    k: int
    n: int

    @property
    def fraction(self) -> float:
        """k / n, in [0, 1)."""
        return self.k / self.n


def scheduled(spec: float | Sequence[float], fraction: float) -> float:
    """A scalar that changes over the run.

    `spec` is a constant or threestudio's four entries (p0, v0, v1, p1): linear from v0 at fraction p0 of the
    run to v1 at fraction p1, constant outside. With p0 = p1 it is a switch: v0 up to p0 included, then v1.
    """
    if isinstance(spec, int | float):
        return float(spec)
    p0, v0, v1, p1 = (float(value) for value in spec)
    if p1 <= p0:
        return v0 if fraction <= p0 else v1
    return v0 + (v1 - v0) * min(max((fraction - p0) / (p1 - p0), 0.0), 1.0)


def sqrt_ramp(start: float, end: float, fraction: float) -> float:
    """From `start` to `end` with the square root of `fraction`, fast at first (HiFA, Zhu and Zhuang 2024)."""
    return start + (end - start) * fraction**0.5
