"""The Janus problem as one number: the share of the true front on an asset's back.

Let B be a view of one side of the asset, and F and T the true front and the true back from the same camera
(Lab, on white, as vectors over all pixels). The front's share is the projection onto the line from the true
back to the true front,

    share = <B - T, F - T> / |F - T|^2          mean over the views of the side

which is 0 for the true back, 1 for the true front, and insensitive to errors that resemble neither (a global
hue shift, noise). Of two opposite sides, the one with the larger share is the asset's front; the share of the
other is the Janus number: 0 for a perfect asset, 1 for one with a face on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

from evaluation.metrics.truth import Pose, Truth

Array = NDArray[np.floating[Any]]

SECTOR_DEG = 46.0  # half-width of a side; of 24 views, seven are within 45 degrees


def janus(rgb: Array, poses: Sequence[Pose], true: Truth) -> tuple[float, float] | None:
    """(share of the true front on the back, on the front) for pictures rgb [V, R, R, 3].

    `poses` are relative to the true object (azimuth 0 looks at its front). None if a side has no view.
    """
    shares = []
    for straight in (0.0, 180.0):
        side = [i for i, pose in enumerate(poses) if abs(_wrap(pose[1] - straight)) <= SECTOR_DEG]
        if not side:
            return None
        at_front = [(e, azimuth - straight, d, f) for e, azimuth, d, f in (poses[i] for i in side)]
        front = _lab(true.views(at_front).rgb)
        back = _lab(true.views([(e, a + 180.0, d, f) for e, a, d, f in at_front]).rgb)
        line, seen = front - back, _lab(rgb[side]) - back
        shares.append(float(np.mean((seen * line).sum(axis=1) / (line**2).sum(axis=1))))
    return min(shares), max(shares)


def _lab(rgb: Array) -> Array:
    """[V, R, R, 3] in [0, 1] -> [V, 3 R R]"""
    return rgb2lab(rgb).reshape(len(rgb), -1)


def _wrap(degrees: float) -> float:
    return (degrees + 180.0) % 360.0 - 180.0
