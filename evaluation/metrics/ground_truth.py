"""Distance between a toy asset and the true object of its prompt.

The asset may face any direction: the true object is turned about the vertical axis to fit it
(`evaluation.metrics.turn`), and all numbers use that turn. Pictures are compared at their own resolution.

    match          the share of the silhouettes' union that has the right place and colour: look at it first
    soft IoU, colour error, high frequency     (evaluation.metrics.likeness)
    normal error   mean over views of the mean angle between the normals over A and T, degrees
    depth error    mean over views of the mean |z_A - z_T| over A and T, world units
    completeness   mean over views of the share of T where A is solid and |z_A - z_T| <= DEEP
    Chamfer        between the points back-projected from the asset's depth maps and the points of the true
                   surface visible in at least one view: (mean A->T + mean T->A) / 2, world units
    Janus          share of the true front on the asset's back, if object and asset have a front
    no front       1 if the object has a front and the asset has none (evaluation.metrics.janus)

A and T are the silhouettes, alpha > 0.5. Two numbers of version 2 are kept in the score file: `iou` of these
silhouettes and `delta_e`, the mean CIEDE2000 difference over both, each at the reduced resolution.

Toy objects fill a ball of radius 0.8. An empty asset has a match, an IoU and a completeness of 0; depth,
normals and Chamfer are undefined.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

from evaluation.metrics import geometry
from evaluation.metrics.base import TOY_PRIORS, Metric, Quantity, Score, finite
from evaluation.metrics.janus import A_FRONT, janus
from evaluation.metrics.likeness import likeness
from evaluation.metrics.renders import chosen_views, load_views, pose, reduced, reduced_resolution
from evaluation.metrics.truth import Truth, Views, is_toy, truth, truth_hash
from evaluation.metrics.turn import best_turn, turned
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError

Array = NDArray[np.floating[Any]]

DEEP = 0.05  # world units; a surface nearer than this to the true one is complete
HIDDEN = 0.05  # world units; about 1.5 pixels at 64 px, for the depth range of slanted surfaces in a pixel
SPACING = 0.02  # world units between compared points


class GroundTruth(Metric):
    name: ClassVar[str] = "ground_truth"
    version: ClassVar[str] = "3"  # 3: match, soft IoU, full resolution, refined turn; 2: Janus
    citation: ClassVar[str] = (
        "trace_bench toy world; Sharma et al. 2005 (CIEDE2000); Fan et al. 2017 (Chamfer distance)"
    )
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(
            "match", "Match", "share of the silhouettes' union with the right place and colour", True, 3
        ),
        Quantity("soft_iou", "IoU", "IoU of the alphas at the fitted azimuth", True, 3),
        Quantity(
            "colour_error", "ΔE", "CIEDE2000 over the union of the silhouettes, per pixel of the true one",
            False, 1,
        ),
        Quantity(
            "high_frequency", "HF", "energy above one pixel's blur over the true one; 1 is right", None, 2
        ),
        Quantity("normal_error", "Normal", "mean angle on the common silhouette, degrees", False, 1),
        Quantity("depth_error", "Depth", "mean |dz| on the common silhouette, world units", False, 3),
        Quantity(
            "completeness", "Complete", f"share of the true silhouette with a surface within {DEEP}", True, 2
        ),
        Quantity(
            "chamfer", "Chamfer", "symmetric mean distance to the visible true surface, world units", False, 3
        ),
        Quantity(
            "janus", "Janus", "share of the true front on the back, if object and asset have a front",
            False, 2, partial=True,
        ),
        Quantity(
            "no_front", "No front", "assets without a front, of the objects with one", False, 0, "count",
            partial=True,
        ),
    )  # fmt: skip

    def __init__(
        self, views: int = 12, resolution: int = 64, azimuth_step_deg: float = 5.0, points: int = 20000
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
        self.azimuth_step_deg = azimuth_step_deg

    left_out = "only toy prompts with several views have a known truth"

    def applies(self, run: Run) -> bool:
        """Toy prompts with several views; an external asset also needs geometry, not only pictures."""
        is_shape = run.geometry.is_file() or not run.manifest.declared
        return is_toy(run.prompt) and len(run.cameras) > 1 and is_shape

    def concerns(self, prior: str) -> bool:
        return prior in TOY_PRIORS  # toy prompts with another prior are scored, but optional

    def files(self, run: Run) -> list[Path]:
        chosen = chosen_views(run, self.views)
        pictures = [name(view) for name in (run.rgb, run.normal) for view in chosen]
        return [*pictures, run.geometry, run.cameras_file]

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
        poses = [pose(camera) for camera in cameras]
        asset = load_views(run, views)
        size = int(cameras[0]["height"])
        resolution = reduced_resolution(size, self.resolution)
        small = reduced(asset, resolution)
        fit = best_turn(small, truth(run.prompt, resolution), poses, self.azimuth_step_deg)
        true, at = truth(run.prompt, size), turned(poses, fit.turn)
        target = true.views(at)
        target = target._replace(normal=geometry.rotate_z(target.normal, fit.turn))
        small_target = reduced(target, resolution)
        like = likeness(asset, target)
        names = ("match", "soft_iou", "colour_error")
        rows = [
            {"view": view, "azimuth_deg": finite(camera["azimuth_deg"], 4)}
            | {name: finite(getattr(like, name)[i]) for name in names}
            | _surface(asset, target, i)
            | _version_2(small, small_target, i)
            for i, (view, camera) in enumerate(zip(views, cameras, strict=True))
        ]
        values: dict[str, float | None] = {}
        for name in (*names, "normal_error", "depth_error", "completeness", "iou", "delta_e"):
            found = np.array([row[name] for row in rows if row[name] is not None])
            values[name] = finite(found.mean()) if len(found) else None
        values["high_frequency"] = finite(like.high_frequency.sum() / like.true_high_frequency.sum())
        values["chamfer"] = finite(_chamfer(small, small_target, true, cameras, fit.turn, self.points))
        values |= {"azimuth_offset_deg": finite(fit.turn, 4), "iou_unturned": finite(fit.iou_unturned)}
        details = {"resolution": size, "reduced": resolution, "colour_difference": "CIEDE2000, sRGB, D65"}
        if not true.scene.has_front:
            return Score(values, rows, details, inapplicable=("janus", "no_front"))
        back, front = janus(asset, at, true) or (None, None)
        has_front = front is not None and front >= A_FRONT
        values |= {
            "janus": finite(back, 4) if has_front else None,
            "no_front": None if front is None else int(not has_front),
            "janus_front": finite(front, 4),
            "janus_back": finite(back, 4),
        }
        no_side = front is None
        return Score(values, rows, details, inapplicable=() if has_front or no_side else ("janus",))


def _surface(asset: Views, target: Views, i: int) -> dict[str, float | None]:
    """Normals and depth of view i where both are solid, and the share of the true surface that is there."""
    solid, true = asset.alpha[i] > 0.5, target.alpha[i] > 0.5
    common = solid & true
    dz = np.abs(asset.depth[i] - target.depth[i])
    there = common & (dz <= DEEP)
    found: dict[str, float | None] = {"completeness": finite(there.sum() / max(true.sum(), 1))}
    if not common.any():
        return found | {"normal_error": None, "depth_error": None}
    cosine = (asset.normal[i][common] * target.normal[i][common]).sum(axis=-1)  # 0, so 90°, without a normal
    angle = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return found | {"normal_error": finite(angle.mean()), "depth_error": finite(dz[common].mean())}


def _version_2(asset: Views, target: Views, i: int) -> dict[str, float | None]:
    """IoU and colour difference of the hard silhouettes of view i, which hide fog and checkerboards."""
    solid, true = asset.alpha[i] > 0.5, target.alpha[i] > 0.5
    common = solid & true
    iou = finite(common.sum() / max((solid | true).sum(), 1))
    if not common.any():
        return {"iou": iou, "delta_e": None}
    lab_asset, lab_true = rgb2lab(asset.rgb[i][common]), rgb2lab(target.rgb[i][common])
    return {"iou": iou, "delta_e": finite(deltaE_ciede2000(lab_asset, lab_true).mean())}


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
