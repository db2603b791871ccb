"""Many comparisons at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.statistics.paired import ALPHA, FEWEST, smallest_p


def holm(p: Sequence[float]) -> list[float]:
    """p adjusted by Holm (1979, Scand. J. Statist. 6, p. 65): at most 5 % of families have a false p <= .05.

    nan (nothing to compare) stays nan and is not counted.
    """
    values = np.asarray(p, float)
    adjusted = np.full(len(values), np.nan)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return adjusted.tolist()


def can_decide(prompts: int, comparisons: int) -> bool:
    """Whether any result on this many prompts could decide one of the comparisons by Holm's correction."""
    return prompts >= FEWEST and smallest_p(prompts) * comparisons <= ALPHA


def prompts_to_decide_any(comparisons: int) -> int:
    """The smallest number of prompts for which `can_decide`."""
    return next(n for n in range(FEWEST, 100) if can_decide(n, comparisons))
