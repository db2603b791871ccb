"""The Janus problem in one number: how much of the true front stands on an asset's back.

With the views B of one side of the asset, the true front F and the true back T from the same places (Lab, on
white, as vectors over all pixels), the front's share is the projection onto the line from the true back to
the true front,

    share = <B - T, F - T> / |F - T|^2          mean over the views of the side

which is 0 for the true back and 1 for the true front, and does not move for errors that make neither more
alike (a wrong hue all over, noise). Either of two opposite sides may be the asset's front: the one with the
larger share is, and the share of the other is the Janus number. A perfect asset has 0, one with a face on
both sides 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

from evaluation.metrics.truth import Pose, Truth

Array = NDArray[np.floating[Any]]

SECTOR_DEG = 46.0  # on either side of straight ahead; 24 views have seven within 45 degrees


def janus(rgb: Array, poses: Sequence[Pose], true: Truth) -> tuple[float, float] | None:
    """(share of the front on the back, on the front) for pictures rgb [V, R, R, 3].

    `poses` are relative to the true object (azimuth 0 looks at its front). None where a side has no view.
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
