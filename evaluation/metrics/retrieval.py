"""Retrieval of a run's own caption among candidates (R-Precision, Jain et al. 2022, Dream Fields)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

AGGREGATES = ("view", "mean")


def r_precision(cosines: NDArray[np.floating], aggregate: str) -> float:
    """Share of hits, 0 to 1, of cosines [views, captions] with the own caption first; a tie is no hit.

    `view` counts each view; `mean` averages the cosines over the views first, and is 0 or 1.
    """
    if aggregate not in AGGREGATES:
        raise ValueError(f"aggregate is {aggregate!r}: it must be view or mean.")
    table = cosines if aggregate == "view" else cosines.mean(axis=0, keepdims=True)
    return float((table[:, :1] > table[:, 1:]).all(axis=1).mean())
