"""How many prompts, and how many seeds per prompt, a comparison needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtr, stdtrit

from evaluation.statistics.multiple import can_decide
from evaluation.statistics.paired import ALPHA, FEWEST

POWER = 0.8
MOST = 1_000_000


def power(difference: float, std: float, prompts: int, comparisons: int = 1) -> float:
    """Chance that a true mean difference is decided, for paired differences with this standard deviation.

    By the noncentral t distribution, two-sided, at .05 / comparisons (Holm's first threshold). Zero where no
    result on so few prompts could be decided.
    """
    if not can_decide(prompts, comparisons):
        return 0.0
    if std == 0:
        return 1.0 if difference else ALPHA / comparisons
    freedom = prompts - 1
    limit = float(stdtrit(freedom, 1 - ALPHA / comparisons / 2))
    shift = abs(difference) / std * math.sqrt(prompts)
    if shift - limit > 30:  # nctdtr has no accuracy there
        return 1.0
    return float(1 - nctdtr(freedom, shift, limit) + nctdtr(freedom, shift, -limit))


def prompts_needed(difference: float, std: float, comparisons: int = 1, wanted: float = POWER) -> int:
    """The smallest number of prompts that decides a true difference with the wanted chance, or `MOST`."""
    low, high = FEWEST - 1, FEWEST
    while high < MOST and power(difference, std, high, comparisons) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(difference, std, middle, comparisons) < wanted else (low, middle)
    return min(high, MOST)


def smallest_difference(std: float, prompts: int, comparisons: int = 1, wanted: float = POWER) -> float:
    """The smallest true difference that this many prompts decide with the wanted chance; inf if none."""
    if not can_decide(prompts, comparisons):
        return math.inf
    low, high = 0.0, std
    while power(high, std, prompts, comparisons) < wanted and high < 1e6 * std:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, std, prompts, comparisons) < wanted else (low, middle)
    return high


@dataclass(frozen=True)
class Spread:
    """Standard deviations of a paired difference: between prompts, and between the seeds of one prompt."""

    prompts: float
    seeds: float

    def std(self, seeds: int) -> float:
        """Between prompts, of the mean over this many seeds: what `power` and `prompts_needed` take."""
        return math.hypot(self.prompts, self.seeds / math.sqrt(seeds))


def spread(differences: NDArray[np.floating[Any]]) -> Spread:
    """The two parts of measured differences [P, S], of P > 1 prompts with S > 1 seeds each.

    By analysis of variance (Searle, Casella and McCulloch 1992, Variance Components, section 3.3): a prompt's
    mean over S seeds varies by both parts, its seeds only by the second. A negative first part becomes 0.
    """
    prompts, seeds = differences.shape
    if prompts < 2 or seeds < 2:
        raise ValueError(f"differences of {prompts} prompts and {seeds} seeds: two of each are the least")
    within = float(differences.var(axis=1, ddof=1).mean())
    between = float(differences.mean(axis=1).var(ddof=1)) - within / seeds
    return Spread(math.sqrt(max(between, 0.0)), math.sqrt(within))


def seeds_needed(
    difference: float, parts: Spread, prompts: int, comparisons: int = 1, wanted: float = POWER
) -> int | None:
    """The fewest seeds per prompt with which this many prompts decide a true difference with the wanted
    chance; None if no number of seeds is enough, since prompts differ by more than that."""
    if power(difference, parts.std(MOST), prompts, comparisons) < wanted:
        return None
    low, high = 0, MOST
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(difference, parts.std(middle), prompts, comparisons) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high
