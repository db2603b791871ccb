"""The true object of a toy prompt from the evaluation cameras, rendered once per process and prompt.

The toy world and torch are imported lazily: the tables only read metric declarations and need neither.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

import trace_bench
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.cameras import Cameras

Array = NDArray[np.floating[Any]]

_EIGHT_BITS = np.float32(255.0)
_CACHED_BYTES = 48 << 20

#: (elevation_deg, azimuth_deg, distance, fovy_deg)
Pose = tuple[float, float, float, float]


class Views(NamedTuple):
    """V pictures on white."""

    rgb: Array  # [V, R, R, 3] in [0, 1]
    alpha: Array  # [V, R, R] in [0, 1]
    depth: Array  # [V, R, R] z-depth, 0 where empty
    normal: Array  # [V, R, R, 3] unit, world; 0 where empty or unknown


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
    """Renders and surface points of one scene; the last `_CACHED_BYTES` of renders are kept."""

    def __init__(self, prompt: str, resolution: int) -> None:
        from trace_bench.toyworld import scene_from_prompt

        self.scene = scene_from_prompt(prompt)
        self.resolution = resolution
        self._views: OrderedDict[Pose, tuple[Array, ...]] = OrderedDict()
        self._labs: dict[Pose, Array] = {}
        self._surfaces: dict[int, tuple[Array, Array]] = {}

    def views(self, poses: list[Pose]) -> Views:
        """The object from each pose."""
        keys = [_key(pose) for pose in poses]
        self._render(keys)
        found = Views(*map(np.stack, zip(*(self._views[key] for key in keys), strict=True)))
        self._forget()
        return found

    def alphas(self, poses: list[Pose]) -> tuple[Array, NDArray[np.intp]]:
        """The silhouettes [U, R, R] of the different poses, and the index [V] of each pose in them."""
        keys = [_key(pose) for pose in poses]
        self._render(keys)
        place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        found = np.stack([self._views[key][1] for key in place])
        self._forget()
        return found, np.array([place[key] for key in keys])

    def lab(self, poses: list[Pose]) -> Array:
        """The pictures in CIELAB [V, R, R, 3]."""
        keys = [_key(pose) for pose in poses]
        self._render(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in self._labs]
        if missing:
            made = rgb2lab(np.stack([self._views[key][0] for key in missing]))
            self._labs |= dict(zip(missing, made, strict=True))
        found = np.stack([self._labs[key] for key in keys])
        self._forget()
        return found

    def _render(self, keys: list[Pose]) -> None:
        """Render the missing poses, on all cores."""
        missing = list(dict.fromkeys(key for key in keys if key not in self._views))
        for key in keys:
            if key in self._views:
                self._views.move_to_end(key)
        if missing:
            import torch

            from trace_bench.cameras import make_cameras

            elevation, azimuth, distance, fovy = torch.tensor(missing, dtype=torch.float64).T
            cameras = make_cameras(elevation, azimuth, distance, fovy, self.resolution, self.resolution)
            with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1)) as pool:  # releases the GIL
                seen = pool.map(lambda i: self._see(cameras[i : i + 1]), range(len(missing)))
            self._views |= dict(zip(missing, seen, strict=True))

    def _see(self, camera: Cameras) -> tuple[Array, ...]:
        """One view, with 8 bits a channel as in run folders: alpha 0.5 becomes 128, which counts as solid."""
        render = self.scene.render(camera)
        rgb, alpha = (np.round(x[0].numpy() * _EIGHT_BITS) / _EIGHT_BITS for x in (render.rgb, render.alpha))
        return rgb, alpha[..., 0], render.depth[0, ..., 0].numpy(), render.normal[0].numpy()

    def _forget(self) -> None:
        views = next(iter(self._views.values()))
        size, lab = sum(array.nbytes for array in views), views[0].nbytes
        while len(self._views) * size + len(self._labs) * lab > _CACHED_BYTES:
            key, _ = self._views.popitem(last=False)
            self._labs.pop(key, None)

    def surface(self, n: int) -> tuple[Array, Array]:
        """n points on the surface and their normals, both [n, 3], the same in every process."""
        if n not in self._surfaces:
            points, _, normals = self.scene.surface_points(n, seed=0)
            self._surfaces[n] = np.asarray(points, np.float64), np.asarray(normals, np.float64)
        return self._surfaces[n]


@lru_cache(maxsize=4096)  # the runs of a prompt ask for the same turns
def _key(pose: Pose) -> Pose:
    elevation, azimuth, distance, fovy = (round(float(x), 4) for x in pose)
    return (elevation, round(azimuth % 360.0, 4) % 360.0, distance, fovy)


_RECENT: OrderedDict[tuple[str, int], Truth] = OrderedDict()
_KEPT = 6  # scenes and resolutions; `score_all` takes the runs of a prompt together


def truth(prompt: str, resolution: int) -> Truth:
    """The scene of a prompt; the last few are cached."""
    key = (prompt, resolution)
    if key not in _RECENT:
        _RECENT[key] = Truth(prompt, resolution)
    _RECENT.move_to_end(key)
    while len(_RECENT) > _KEPT:
        _RECENT.popitem(last=False)
    return _RECENT[key]
