"""Krippendorff's alpha for nominal categories.

    alpha = 1 - D_o / D_e,  D_o = sum_{c≠k} o_ck / n,  D_e = sum_{c≠k} n_c n_k / (n (n - 1))

o is the coincidence matrix, to which a unit with m ≥ 2 values adds 1 / (m - 1) for each ordered pair of
values of two raters; n_c are its row sums, n is their sum. 1 is full agreement, 0 is chance. Units with one
value are left out; missing values are allowed. (Krippendorff, Computing Krippendorff's Alpha-Reliability,
2011.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def coincidences(counts: Floats) -> Floats:
    """Contribution of each unit to the coincidence matrix.

    Args:
        counts: [units, categories], number of raters per category.

    Returns: [units, categories, categories], zero for units with fewer than two values.
    """
    values = counts.sum(1)
    pairs = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(counts.shape[1])
    pairs[:, diagonal, diagonal] -= counts
    return pairs / np.where(values > 1, values - 1, np.inf)[:, None, None]


def alpha(matrix: Floats) -> Floats:
    """Alpha of coincidence matrices [..., categories, categories]; NaN if only one category occurs."""
    n_c = matrix.sum(-1)
    n = n_c.sum(-1)
    observed = n - np.trace(matrix, axis1=-2, axis2=-1)
    expected = (n**2 - (n_c**2).sum(-1)) / np.where(n > 1, n - 1, np.nan)
    return 1.0 - observed / np.where(expected > 0, expected, np.nan)
