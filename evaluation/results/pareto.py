"""The Pareto front of quality against cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.metrics.base import Quantity


def on_front(quality: Sequence[float], cost: Sequence[float], quantity: Quantity) -> list[bool]:
    """Which points are non-dominated: no other is at least as good at no higher cost, with one strict.

    Points with a missing value are never on the front.
    """
    sign = 1.0 if quantity.higher_is_better else -1.0
    q, c = sign * np.asarray(quality, float), np.asarray(cost, float)
    known = np.isfinite(q) & np.isfinite(c)
    as_good = (q[:, None] >= q[None]) & (c[:, None] <= c[None])  # [i, j]: i is no worse than j
    better = as_good & ((q[:, None] > q[None]) | (c[:, None] < c[None]))
    return [bool(known[j] and not (better[:, j] & known).any()) for j in range(len(q))]
