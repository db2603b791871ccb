"""The Janus problem as one number: the share of the true front on an asset's back.

Let B be a view of one side of the asset, and F and T the true front and the true back from the same camera
(Lab, on white). The front's share is the projection onto the line from the true back to the true front,

    share = sum <B - T, F - T> / sum |F - T|^2     over the pixels and the views of the side

over the pixels in the silhouettes of all three. So it is 0 for the true back, 1 for the true front,
weighted to where front and back differ, and insensitive to errors that resemble neither (a global hue
shift, noise); it is clipped to [0, 1]. Of two opposite sides, the one with the larger share is the
asset's front, if the share is at least `A_FRONT`; the share of the other is then the Janus number: 0 for
a perfect asset, 1 for one with a face on both sides. An asset without a front has no Janus number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

from evaluation.metrics.truth import Pose, Truth, Views

Array = NDArray[np.floating[Any]]

SECTOR_DEG = 46.0  # half-width of a side
A_FRONT = 0.5
SOLID = 0.5  # alpha


def janus(asset: Views, poses: Sequence[Pose], true: Truth) -> tuple[float, float] | None:
    """(smaller, larger) share of the true front on the two sides of the asset's views [V, R, R].

    `poses` are relative to the true object (azimuth 0 looks at its front). None if a side has no view.
    """
    shares = []
    for straight in (0.0, 180.0):
        side = [i for i, pose in enumerate(poses) if abs(_wrap(pose[1] - straight)) <= SECTOR_DEG]
        if not side:
            return None
        at_front = [(e, azimuth - straight, d, f) for e, azimuth, d, f in (poses[i] for i in side)]
        front = true.views(at_front)
        back = true.views([(e, a + 180.0, d, f) for e, a, d, f in at_front])
        common = (asset.alpha[side] > SOLID) & (front.alpha > SOLID) & (back.alpha > SOLID)
        if not common.any():
            shares.append(0.0)
            continue
        of_front, of_back, of_asset = (rgb2lab(x[common]) for x in (front.rgb, back.rgb, asset.rgb[side]))
        line, seen = of_front - of_back, of_asset - of_back
        length = float((line**2).sum())
        shares.append(float(np.clip((seen * line).sum() / length, 0.0, 1.0)) if length > 0.0 else 0.0)
    return min(shares), max(shares)


def _wrap(degrees: float) -> float:
    return (degrees + 180.0) % 360.0 - 180.0
