"""Renders of a run folder as arrays, reduced to a given number of views and resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evaluation.metrics.geometry import evenly
from evaluation.metrics.truth import Pose, Views
from trace_bench.run_folder.reading import AGAIN, Run
from trace_bench.system.errors import TraceBenchError


def pose(camera: dict[str, Any]) -> Pose:
    return tuple(float(camera[key]) for key in ("elevation_deg", "azimuth_deg", "distance", "fovy_deg"))  # type: ignore[return-value]


def open_rgb(path: Path) -> Image.Image:
    """A render as RGB; raises for transparency, because the background would be a guess."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # decoders raise whatever they meet
        raise TraceBenchError(f"{path} is not a readable picture ({error}): {AGAIN}.") from error
    if image.mode != "RGB":
        raise TraceBenchError(f"{path} has mode {image.mode}, not RGB on white: {AGAIN}.")
    return image


def chosen_views(run: Run, wanted: int) -> list[int]:
    """The views to score: all, or `wanted` evenly spaced ones starting at the front."""
    return list(evenly(len(run.cameras), wanted))


def reduced_resolution(size: int, wanted: int) -> int:
    """The smallest resolution >= `wanted` that divides `size`."""
    factors = [f for f in range(1, size + 1) if size % f == 0 and size // f >= wanted]
    return size // max(factors, default=1)


def load_views(run: Run, views: list[int]) -> Views:
    """The asset's renders, at their own resolution."""
    alpha, depth = _load_geometry(run, views)
    rgb, normal = (
        np.stack([np.asarray(open_rgb(name(view)), np.float32) / 255.0 for view in views])
        for name in (run.rgb, run.normal)
    )
    if not rgb.shape[:3] == normal.shape[:3] == alpha.shape == depth.shape:
        raise TraceBenchError(
            f"{run.folder / 'renders'}: pictures, geometry.npz and cameras.json differ in size: {AGAIN}."
        )
    return Views(rgb, alpha, depth, _decoded(normal, alpha))


def _decoded(picture: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit normals from (n + 1) / 2 over white; 0 where there is none."""
    covered = alpha[..., None]
    normal = 2.0 * (picture - (1.0 - covered)) - covered
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.where((covered > 0.0) & (length > 0.1 * covered), normal / np.maximum(length, 1e-6), 0.0)


def reduced(views: Views, resolution: int) -> Views:
    """The views box-averaged to `resolution` (a divisor of theirs); depth is weighted by alpha."""
    total = _shrink(np.where(views.depth > 0, views.depth, 0) * views.alpha, resolution)
    weight = _shrink(np.where(views.depth > 0, views.alpha, 0), resolution)
    depth = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    alpha, rgb, normal = (_shrink(x, resolution) for x in (views.alpha, views.rgb, views.normal))
    return Views(rgb, alpha, depth, normal)


def open_alpha(run: Run) -> NDArray[np.uint8]:
    """The opacity of all views, 255 is opaque: [V, H, W]."""
    return np.round(_load_geometry(run, list(range(len(run.cameras))))[0] * 255.0).astype(np.uint8)


def _load_geometry(run: Run, views: list[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Alpha and depth of the views; without any view if geometry.npz has not one picture per camera."""
    try:
        with np.load(run.geometry, allow_pickle=False) as arrays:
            alpha, depth = arrays["alpha"], arrays["depth"]
        chosen = views if len(alpha) == len(depth) == len(run.cameras) else []
        return alpha[chosen].astype(np.float32) / 255.0, depth[chosen].astype(np.float32)
    except Exception as error:  # as above
        raise TraceBenchError(f"{run.geometry} cannot be read ({error}): {AGAIN}.") from error


def _shrink(images: NDArray[np.float32], resolution: int) -> NDArray[np.float32]:
    """Box average [V, H, W, ...] -> [V, R, R, ...]."""
    v, size = images.shape[:2]
    f = size // resolution
    return images.reshape(v, resolution, f, resolution, f, *images.shape[3:]).mean(axis=(2, 4))
