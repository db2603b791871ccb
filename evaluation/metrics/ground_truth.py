"""Distance between a toy asset and the true object of its prompt.

The asset may face any direction: the true object is rotated about the vertical axis by every multiple of
`azimuth_step_deg`, and the rotation with the best mean silhouette IoU is used (the smallest within `TIE` of
the best, so that a round object is not rotated). All other numbers use that rotation.

    IoU          mean over views of |A and T| / |A or T|, silhouettes are alpha > 0.5
    ΔE           mean over views of the mean CIEDE2000 difference (sRGB, D65) over A and T; delta_e_76 is the
                 older CIE76
    depth error  mean over views of the mean |z_A - z_T| over A and T, world units
    Chamfer      between the points back-projected from the asset's depth maps and the points of the true
                 surface visible in at least one view: (mean A->T + mean T->A) / 2, world units
    Janus        share of the true front on the asset's back, if the object has a front
                 (evaluation.metrics.janus)

Toy objects fill a ball of radius 0.8. An empty asset has IoU 0; all other numbers are undefined.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_cie76, deltaE_ciede2000, rgb2lab

from evaluation.metrics import geometry
from evaluation.metrics.base import Metric, Quantity, Score, finite
from evaluation.metrics.janus import janus
from evaluation.metrics.renders import chosen_views, load_views, pose, reduced_resolution
from evaluation.metrics.truth import Truth, Views, is_toy, truth, truth_hash
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError

Array = NDArray[np.floating[Any]]

TIE = 1e-3  # IoU
HIDDEN = 0.05  # world units; about 1.5 pixels at 64 px, for the depth range of slanted surfaces in a pixel
SPACING = 0.02  # world units between compared points


class GroundTruth(Metric):
    name: ClassVar[str] = "ground_truth"
    version: ClassVar[str] = "2"  # 2: Janus
    citation: ClassVar[str] = (
        "trace_bench toy world; Sharma et al. 2005 (CIEDE2000); Fan et al. 2017 (Chamfer distance)"
    )
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("iou", "IoU", "silhouette IoU at the best azimuth", True, 3),
        Quantity("delta_e", "ΔE", "mean CIEDE2000 on the common silhouette", False, 1),
        Quantity("depth_error", "Depth", "mean |dz| on the common silhouette, world units", False, 3),
        Quantity(
            "chamfer", "Chamfer", "symmetric mean distance to the visible true surface, world units", False, 3
        ),
        Quantity(
            "janus", "Janus", "share of the true front on the back, if the object has a front", False, 2,
            partial=True,
        ),
    )  # fmt: skip

    def __init__(
        self, views: int = 24, resolution: int = 64, azimuth_step_deg: float = 5.0, points: int = 20000
    ) -> None:
        if views < 1 or resolution < 8 or points < 1:
            raise TraceBenchError("metrics.ground_truth needs views >= 1, resolution >= 8 and points >= 1.")
        if (
            not 0 < azimuth_step_deg <= 360
            or abs(360 / azimuth_step_deg - round(360 / azimuth_step_deg)) > 1e-9
        ):
            raise TraceBenchError(
                f"metrics.ground_truth.azimuth_step_deg={azimuth_step_deg} must divide 360."
            )
        self.views, self.resolution, self.points = views, resolution, points
        turns = np.arange(round(360 / azimuth_step_deg)) * azimuth_step_deg
        # Smallest first, so that argmax prefers small turns.
        self.turns = np.array(sorted((turns + 180.0) % 360.0 - 180.0, key=lambda a: (abs(a), -a)))
        self.azimuth_step_deg = azimuth_step_deg

    left_out = "only toy prompts with several views have a known truth"

    def applies(self, run: Run) -> bool:
        """Toy prompts with several views; an external asset also needs geometry, not only pictures."""
        is_shape = run.geometry.is_file() or not run.manifest.declared
        return is_toy(run.prompt) and len(run.cameras) > 1 and is_shape

    def concerns(self, prior: str) -> bool:
        return prior == "tiny"  # toy prompts with another prior are scored, but optional

    def files(self, run: Run) -> list[Path]:
        chosen = [run.rgb(view) for view in chosen_views(run, self.views)]
        return [*chosen, run.geometry, run.cameras_file]

    def weights(self, run: Run) -> str:
        return truth_hash()

    def settings(self, run: Run) -> dict[str, Any]:
        return {
            "views": self.views,
            "resolution": self.resolution,
            "azimuth_step_deg": self.azimuth_step_deg,
            "points": self.points,
        }

    def score(self, run: Run) -> Score:
        views = chosen_views(run, self.views)
        cameras = [run.cameras[view] for view in views]
        resolution = reduced_resolution(int(cameras[0]["height"]), self.resolution)
        asset, true = load_views(run, views, resolution), truth(run.prompt, resolution)
        turn, ious, unturned = best_turn(asset.alpha > 0.5, true, cameras, self.turns)
        target = true.views(_turned(cameras, turn))
        rows = [
            {"view": view, "azimuth_deg": finite(camera["azimuth_deg"], 4), "iou": finite(iou)}
            | _compare(asset, target, i)
            for i, (view, camera, iou) in enumerate(zip(views, cameras, ious, strict=True))
        ]
        values = {"iou": finite(float(ious.mean()))}
        for name in ("delta_e", "delta_e_76", "depth_error"):
            found = np.array([row[name] for row in rows if row[name] is not None])
            values[name] = finite(found.mean()) if len(found) else None
        values["chamfer"] = finite(_chamfer(asset, target, true, cameras, turn, self.points))
        values |= {"azimuth_offset_deg": finite(turn), "iou_unturned": finite(unturned)}
        details = {"resolution": resolution, "colour_difference": "CIEDE2000, sRGB, D65"}
        if not true.scene.has_front:
            return Score(values, rows, details, inapplicable=("janus",))
        shares = janus(asset.rgb, _turned(cameras, turn), true) if asset.alpha.max() > 0.5 else None
        back, front = shares or (None, None)
        values |= {"janus": finite(back, 4), "janus_front": finite(front, 4)}
        return Score(values, rows, details)


def _turned(cameras: list[dict[str, Any]], turn: float) -> list[tuple[float, float, float, float]]:
    """Poses at which the unrotated object looks like the object rotated by `turn` seen from `cameras`."""
    poses = [pose(camera) for camera in cameras]
    return [(elevation, azimuth - turn, distance, fovy) for elevation, azimuth, distance, fovy in poses]


def best_turn(
    asset: NDArray[np.bool_], true: Truth, cameras: list[dict[str, Any]], turns: Array
) -> tuple[float, Array, float]:
    """(best turn in degrees, its IoU per view [V], mean IoU at turn 0) for silhouettes [V, R, R].

    `turns` is sorted by absolute value and starts with 0.
    """
    poses = [one for turn in turns for one in _turned(cameras, float(turn))]
    silhouettes = true.silhouettes(poses).reshape(len(turns), *asset.shape)
    common = (silhouettes & asset).sum(axis=(2, 3))
    either = (silhouettes | asset).sum(axis=(2, 3))
    ious = common / np.maximum(either, 1)  # [turns, V]
    means = ious.mean(axis=1)
    best = int(np.argmax(means >= means.max() - TIE))
    return float(turns[best]), ious[best], float(means[0])


def _compare(asset: Views, target: Views, i: int) -> dict[str, float | None]:
    """Colour and depth differences of view i on the common silhouette."""
    common = (asset.alpha[i] > 0.5) & (target.alpha[i] > 0.5)
    if not common.any():
        return {"delta_e": None, "delta_e_76": None, "depth_error": None}
    lab_asset, lab_true = rgb2lab(asset.rgb[i][common]), rgb2lab(target.rgb[i][common])
    dz = np.abs(asset.depth[i][common] - target.depth[i][common])
    return {
        "delta_e": finite(deltaE_ciede2000(lab_asset, lab_true).mean()),
        "delta_e_76": finite(deltaE_cie76(lab_asset, lab_true).mean()),
        "depth_error": finite(dz.mean()),
    }


def _chamfer(
    asset: Views, target: Views, true: Truth, cameras: list[dict[str, Any]], turn: float, n: int
) -> float:
    """Chamfer distance between the visible surfaces of the asset and of the rotated true object."""
    points, normals = (geometry.rotate_z(x, turn) for x in true.surface(n))
    visible = np.zeros(len(points), bool)
    found = []
    for i, camera in enumerate(cameras):
        c2w, fovy = np.asarray(camera["c2w"], np.float64), float(camera["fovy_deg"])
        todo = np.nonzero(~visible)[0]
        visible[todo] = geometry.seen(points[todo], normals[todo], target.depth[i], c2w, fovy, HIDDEN)
        solid = (asset.alpha[i] > 0.5) & (asset.depth[i] > 0)
        found.append(geometry.back_project(asset.depth[i], solid, c2w, fovy))
    return geometry.chamfer_distance(
        geometry.thin(np.concatenate(found), SPACING), geometry.thin(points[visible], SPACING)
    )
