"""The turn of an asset about the vertical axis, relative to the true object.

Score distillation does not know where the front is, so an asset may face any direction. Among the turns
of the grid whose silhouettes fit (nearly) equally well, the one with the least colour error counts. It is
refined with the cost

    1 - soft IoU + dE / 100

where dE is the mean CIE76 difference over the area of the true silhouette. The cost grows linearly with a
small error of the turn, so the costs of a turn of the grid and its two neighbours give the place of the
minimum between them; a few views decide among this place, two beside it and the turn of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

from evaluation.metrics.truth import Pose, Truth, Views

Array = NDArray[np.floating[Any]]

NEAR = 0.01  # soft IoU: turns this close to the best are told apart by their colours
TIE = 1e-4  # of the cost; the first of several wins, which is the smallest turn or the one of the grid
BESIDE = 0.12  # of the grid's step
REFINED_VIEWS = 4


@dataclass(frozen=True)
class Fit:
    """The fitted turn in degrees, in [-180, 180), and the soft IoU of turn 0."""

    turn: float
    iou_unturned: float


def turned(poses: Sequence[Pose], turn: float) -> list[Pose]:
    """Poses at which the true object looks like the object rotated by `turn` seen from `poses`."""
    return [(elevation, azimuth - turn, distance, fovy) for elevation, azimuth, distance, fovy in poses]


def best_turn(asset: Views, true: Truth, poses: Sequence[Pose], step_deg: float) -> Fit:
    """The turn of the asset [V, R, R] whose views are seen from `poses`; R is the resolution of `true`."""
    grid = np.arange(round(360 / step_deg)) * step_deg
    grid = np.array(sorted((grid + 180.0) % 360.0 - 180.0, key=lambda a: (abs(a), -a)))  # small turns first
    ious = _ious(asset.alpha, true, poses, grid)
    lab = rgb2lab(asset.rgb)
    near = [float(turn) for turn in grid[ious >= ious.max() - NEAR]]
    colours = [_colour_error(lab, true, turned(poses, turn))[0] for turn in near] if len(near) > 1 else [0.0]
    start = near[_first_best(colours)]

    def cost(turn: float, of: Sequence[int]) -> float:
        error, alpha = _colour_error(lab[of], true, turned([poses[i] for i in of], turn))
        return 1.0 - float(soft_iou(asset.alpha[of], alpha).mean()) + error / 100.0

    every = list(range(len(poses)))
    between = start + step_deg * _minimum(*(cost(start + k * step_deg, every) for k in (-1, 0, 1)))
    few = every[:: max(1, len(poses) // REFINED_VIEWS)]
    candidates = [start, between, between - BESIDE * step_deg, between + BESIDE * step_deg]
    best = candidates[_first_best([100.0 * cost(turn, few) for turn in candidates])]
    return Fit((best + 180.0) % 360.0 - 180.0, float(ious[0]))


def _minimum(before: float, here: float, after: float) -> float:
    """Where a function c + s |x - x0| is least, from its values at -1, 0 and 1."""
    difference = before - after
    slope = 0.5 * (before + after - 2.0 * here + abs(difference))
    return 0.0 if slope <= 0.0 else float(np.clip(0.5 * difference / slope, -1.0, 1.0))


def _first_best(colours: Sequence[float]) -> int:
    """The first within `TIE` of the least colour error, in units of the cost."""
    costs = np.asarray(colours) / 100.0
    return int(np.argmax(costs <= costs.min() + TIE))


def _ious(alpha: Array, true: Truth, poses: Sequence[Pose], turns: Array) -> Array:
    """Mean soft IoU [T] of the asset's silhouettes [V, R, R] at each turn."""
    wanted = [pose for turn in turns for pose in turned(poses, float(turn))]
    silhouettes, place = true.alphas(wanted)
    place = place.reshape(len(turns), len(poses))
    found = [soft_iou(alpha[i][None], silhouettes[place[:, i]]) for i in range(len(poses))]
    return np.stack(found, axis=1).mean(axis=1)


def soft_iou(a: Array, b: Array) -> Array:
    """Sum of the smaller over sum of the larger alpha: [V, R, R] twice -> [V]; 0 if both are empty."""
    either = np.maximum(a, b).sum(axis=(1, 2))
    return np.minimum(a, b).sum(axis=(1, 2)) / np.maximum(either, 1e-6)


def _colour_error(lab: Array, true: Truth, poses: list[Pose]) -> tuple[float, Array]:
    """Mean over views of the CIE76 difference, per pixel of the true silhouette; and the silhouettes."""
    silhouettes, place = true.alphas(poses)
    alpha = silhouettes[place]
    difference = np.sqrt(((lab - true.lab(poses)) ** 2).sum(axis=-1)).sum(axis=(1, 2))
    return float((difference / np.maximum(alpha.sum(axis=(1, 2)), 1.0)).mean()), alpha
