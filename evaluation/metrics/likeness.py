"""How much pictures of an asset are like pictures of the true object, at full resolution and on white.

A is the asset's alpha, T the true one, d the CIEDE2000 difference (sRGB, D65) of a pixel:

    match           sum min(A, T) max(0, 1 - d / WRONG) / sum max(A, T)
    soft IoU        sum min(A, T) / sum max(A, T)
    colour error    sum d / sum T; outside both silhouettes d is 0, so this is the sum over their union
    high frequency  energy of the asset's pictures minus their blur by one pixel, over the true energy

The colour error is per pixel of the true silhouette, so that an asset cannot thin out its errors by covering
more of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.color import deltaE_ciede2000, rgb2lab

from evaluation.metrics.truth import Views
from evaluation.metrics.turn import soft_iou

Array = NDArray[np.floating[Any]]

WRONG = 20.0  # CIEDE2000: from here on, a colour does not match at all (red against orange is about 30)
BLUR = 1.0  # standard deviation in pixels


@dataclass(frozen=True)
class Likeness:
    """Each [V], per view."""

    match: Array
    soft_iou: Array
    colour_error: Array
    high_frequency: Array  # energy of the asset
    true_high_frequency: Array


def likeness(asset: Views, target: Views) -> Likeness:
    """Compare views of the asset with those of the true object from the same cameras."""
    difference = _ciede2000(asset.rgb, target.rgb)
    smaller, larger = np.minimum(asset.alpha, target.alpha), np.maximum(asset.alpha, target.alpha)
    right = smaller * np.maximum(0.0, 1.0 - difference / WRONG)
    area = np.maximum(target.alpha.sum(axis=(1, 2)), 1e-6)
    return Likeness(
        right.sum(axis=(1, 2)) / np.maximum(larger.sum(axis=(1, 2)), 1e-6),
        soft_iou(asset.alpha, target.alpha),
        difference.sum(axis=(1, 2)) / area,
        _energy(asset.rgb),
        _energy(target.rgb),
    )


def _ciede2000(a: Array, b: Array) -> Array:
    """Difference per pixel [V, R, R], computed only where the pictures differ."""
    found = np.zeros(a.shape[:3])
    differ = (a != b).any(axis=-1)
    if differ.any():
        found[differ] = deltaE_ciede2000(rgb2lab(a[differ]), rgb2lab(b[differ]))
    return found


def _energy(rgb: Array) -> Array:
    high = rgb - gaussian_filter(rgb, (0.0, BLUR, BLUR, 0.0))
    return (high**2).sum(axis=(1, 2, 3))
