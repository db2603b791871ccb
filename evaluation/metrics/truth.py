"""The true object of a toy prompt from the evaluation cameras, rendered once per process and prompt.

The toy world and torch are imported lazily: the tables only read metric declarations and need neither.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import trace_bench
from trace_bench.system.errors import TraceBenchError

Array = NDArray[np.floating[Any]]

#: (elevation_deg, azimuth_deg, distance, fovy_deg)
Pose = tuple[float, float, float, float]


class Views(NamedTuple):
    """V pictures on white."""

    rgb: Array  # [V, R, R, 3] in [0, 1]
    alpha: Array  # [V, R, R] in [0, 1]
    depth: Array  # [V, R, R] z-depth, 0 where empty


def is_toy(prompt: str) -> bool:
    """Whether the prompt describes a toy-world object."""
    from trace_bench.toyworld import scene_from_prompt

    try:
        scene_from_prompt(prompt)
    except TraceBenchError:
        return False
    return True


@cache
def truth_hash() -> str:
    """Hash of the toy world's code, which determines the true object of each prompt."""
    digest = hashlib.sha256()
    for path in sorted((Path(trace_bench.__file__).parent / "toyworld").glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class Truth:
    """Cached renders and surface points of one scene."""

    def __init__(self, prompt: str, resolution: int) -> None:
        from trace_bench.toyworld import scene_from_prompt

        self.scene = scene_from_prompt(prompt)
        self.resolution = resolution
        self._views: dict[Pose, tuple[Array, Array, Array]] = {}
        self._surfaces: dict[int, tuple[Array, Array]] = {}

    def views(self, poses: list[Pose]) -> Views:
        """The object from each pose."""
        rgbs, alphas, depths = zip(*(self._views[key] for key in self._render(poses)), strict=True)
        return Views(np.stack(rgbs), np.stack(alphas), np.stack(depths))

    def silhouettes(self, poses: list[Pose]) -> NDArray[np.bool_]:
        """Where alpha > 0.5, [V, R, R]."""
        return np.stack([self._views[key][1] > 0.5 for key in self._render(poses)])

    def _render(self, poses: list[Pose]) -> list[Pose]:
        """Render the missing poses; returns the keys of all."""
        keys = [_key(pose) for pose in poses]
        missing = list(dict.fromkeys(key for key in keys if key not in self._views))
        if missing:
            import torch

            from trace_bench.cameras import make_cameras

            elevation, azimuth, distance, fovy = torch.tensor(missing, dtype=torch.float64).T
            cameras = make_cameras(elevation, azimuth, distance, fovy, self.resolution, self.resolution)
            render = self.scene.render(cameras)
            rgb, alpha, depth = (x.numpy() for x in (render.rgb, render.alpha, render.depth))
            # 8 bits, as in run folders: alpha 0.5 becomes 128, which counts as solid.
            rgb, alpha = (np.round(x * np.float32(255.0)) / np.float32(255.0) for x in (rgb, alpha))
            self._views |= {
                key: (rgb[i], alpha[i, ..., 0], depth[i, ..., 0]) for i, key in enumerate(missing)
            }
        return keys

    def surface(self, n: int) -> tuple[Array, Array]:
        """n points on the surface and their normals, both [n, 3], the same in every process."""
        if n not in self._surfaces:
            points, _, normals = self.scene.surface_points(n, seed=0)
            self._surfaces[n] = np.asarray(points, np.float64), np.asarray(normals, np.float64)
        return self._surfaces[n]


def _key(pose: Pose) -> Pose:
    elevation, azimuth, distance, fovy = (round(float(x), 4) for x in pose)
    return (elevation, round(azimuth % 360.0, 4) % 360.0, distance, fovy)


_RECENT: OrderedDict[tuple[str, int], Truth] = OrderedDict()
_KEPT = 4  # prompts; runs are sorted by prompt, so all methods of a prompt share its renders


def truth(prompt: str, resolution: int) -> Truth:
    """The scene of a prompt; the last few are cached."""
    key = (prompt, resolution)
    if key not in _RECENT:
        _RECENT[key] = Truth(prompt, resolution)
    _RECENT.move_to_end(key)
    while len(_RECENT) > _KEPT:
        _RECENT.popitem(last=False)
    return _RECENT[key]
