"""Confidence intervals of paired differences."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

REPLICATES, SEED = 2000, 0


class Difference(NamedTuple):
    """Mean of a − b over prompts and its 95 % percentile interval; nan for fewer than two prompts."""

    mean: float
    low: float
    high: float
    prompts: int

    def text(self, decimals: int) -> str:
        sign = lambda value: f"{value:+.{decimals}f}".replace("-", "−")  # noqa: E731
        if np.isnan(self.low):
            return sign(self.mean)
        return f"{sign(self.mean)} [{sign(self.low)}, {sign(self.high)}]"

    @property
    def decided(self) -> bool:
        """Whether the interval excludes zero."""
        return bool(self.low > 0 or self.high < 0)


def paired_difference(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> Difference:
    """Bootstrap over prompts, for values [P] on the same prompts; prompts missing in either are dropped."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    difference = difference[np.isfinite(difference)]
    n = len(difference)
    if n < 2:
        return Difference(float(difference.mean()) if n else float("nan"), float("nan"), float("nan"), n)
    drawn = np.random.default_rng(SEED).integers(0, n, (REPLICATES, n))
    low, high = np.percentile(difference[drawn].mean(axis=1), [2.5, 97.5])
    return Difference(float(difference.mean()), float(low), float(high), n)
