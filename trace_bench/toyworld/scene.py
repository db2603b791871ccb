"""A scene of the toy world: its ground-truth images, depth, normals and surface."""

from __future__ import annotations

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.toyworld import render as kernels
from trace_bench.toyworld import sdf
from trace_bench.toyworld.captions import Caption, parse
from trace_bench.toyworld.objects import OBJECTS
from trace_bench.toyworld.shapes import COLORS, Part, plain, stacked

OUTER_RADIUS = 0.79  # every scene fits in this ball around the origin ...
LARGEST_EXTENT = 1.5  # ... and the sides of its bounding box are at most this long


@dataclass(frozen=True)
class SceneRender:
    """Views of cameras; depth (camera z) and normal (world) are 0 in empty pixels."""

    rgb: Tensor  # [B, H, W, 3] in [0, 1]
    alpha: Tensor  # [B, H, W, 1]
    depth: Tensor  # [B, H, W, 1]
    normal: Tensor  # [B, H, W, 3]


def _solids(parts: list[Part]) -> sdf.Solids:
    """The parts in the format of the kernels, in float64."""
    params = np.zeros((len(parts), 4))
    for row, part in zip(params, parts, strict=True):
        row[: len(part.lengths)] = part.lengths
    return sdf.Solids(
        kinds=np.array([p.kind for p in parts], np.int64),
        params=params,
        rotations=np.stack([p.rotation() for p in parts]),
        centres=np.array([p.at for p in parts], np.float64),
        radii=np.array([p.bounding_radius() for p in parts], np.float64),
        colors=np.array([p.color for p in parts], np.float64),
    )


def _cross(
    solids: sdf.Solids, rng: np.random.Generator, lines: int, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Uniform surface points from random lines: (points [K, 3], part indices [K])."""

    def walk(starts: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        room = len(starts) * 8 + 64  # also for a single line through many parts
        points, parts = np.empty((room, 3)), np.empty(room, np.int64)
        found = kernels.cross_lines(solids, starts, directions, 2.0 * radius, points, parts)
        return points[:found], parts[:found]

    cores = min(8, os.cpu_count() or 1)
    pieces = [np.array_split(x, cores) for x in kernels.random_lines(rng, lines, radius)]
    with ThreadPoolExecutor(cores) as pool:  # releases the GIL; the order of the points stays
        points, parts = zip(*pool.map(walk, *pieces), strict=True)
    return np.concatenate(points), np.concatenate(parts)


@lru_cache(maxsize=256)
def _fit(shape: tuple[Part, ...]) -> tuple[tuple[float, float, float], float]:
    """(offset, scale) that centres a scene's bounding box and scales the scene to fill the ball."""
    reach = max(float(np.linalg.norm(p.at)) + p.bounding_radius() for p in shape) + 0.01
    points, _ = _cross(_solids(list(shape)), np.random.default_rng(0), 60_000, reach)
    low, high = points.min(0), points.max(0)
    centre = 0.5 * (low + high)
    radius = np.linalg.norm(points - centre, axis=1).max()
    scale = min(OUTER_RADIUS / (1.005 * radius), LARGEST_EXTENT / (high - low).max())
    return tuple(float(-c) for c in centre), float(scale)  # type: ignore[return-value]


class Scene:
    """One thing of the toy world, centred and scaled to a ball of radius 0.79. Build it with
    ``scene_from_prompt``.
    """

    def __init__(self, caption: Caption) -> None:
        self.caption = caption
        self.prompt = caption.text
        self.has_front = caption.name in OBJECTS and OBJECTS[caption.name].has_front
        parts = self._loose_parts(caption)
        # Fit the shape without colours, so that the colour cannot move a scene by a sampling error.
        offset, scale = _fit(tuple(self._loose_parts(caption, colored=False)))
        self.parts = [part.moved(np.array(offset), scale) for part in parts]
        self._solids = _solids(self.parts)

    @staticmethod
    def _loose_parts(caption: Caption, colored: bool = True) -> list[Part]:
        color = COLORS[caption.color] if caption.color and colored else (0.5, 0.5, 0.5)
        base_color = COLORS[caption.base_color] if caption.base_color and colored else (0.5, 0.5, 0.5)
        if caption.base is not None:
            return stacked(caption.name, color, caption.base, base_color)
        if caption.name in OBJECTS:
            return OBJECTS[caption.name].build(color)
        return plain(caption.name, color)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance [N] at points [N, 3]; for some solids a lower bound away from the surface."""
        every = np.arange(len(self.parts))
        return np.array(
            [sdf.nearest(self._solids, every, len(every), *p)[0] for p in np.asarray(points, float)]
        )

    def with_parts(self, parts: list[Part]) -> Scene:
        """The scene with other parts, which are neither moved nor scaled; they must fit in the ball."""
        other = copy.copy(self)
        other.parts, other._solids = parts, _solids(parts)
        return other

    def render_arrays(
        self, c2w: np.ndarray, focal: float, height: int, width: int, cut: int = sdf.WHOLE
    ) -> tuple[np.ndarray, ...]:
        """(premultiplied rgba [H, W, 4], depth [H, W], normal [H, W, 3]) of one view, float32.

        c2w [4, 4] may be any affine map: with M^-1 c2w, the view is that of the object under the map M, but
        normals and shading are the object's own. `cut` is one of the names in `sdf`.
        """
        rgba = np.empty((height, width, 4), np.float32)
        depth, normal = np.empty((height, width), np.float32), np.empty((height, width, 3), np.float32)
        kernels.render_view(
            self._solids, np.ascontiguousarray(c2w, float), float(focal), rgba, depth, normal, cut
        )
        return rgba, depth, normal

    def render(
        self, cameras: Cameras, background: Tensor | tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> SceneRender:
        """The true images from cameras [B] over one background colour [3] or one per view [B, 3]."""
        c2w, focal = cameras.c2w.cpu().numpy(), cameras.Ks[:, 1, 1].cpu().numpy()
        views = [
            self.render_arrays(c2w[i], focal[i], cameras.height, cameras.width) for i in range(len(cameras))
        ]
        rgba, depth, normal = (
            torch.from_numpy(np.stack(v)).to(cameras.c2w.device) for v in zip(*views, strict=True)
        )
        back = torch.as_tensor(background, dtype=torch.float32, device=rgba.device).reshape(-1, 1, 1, 3)
        rgb = rgba[..., :3] + (1.0 - rgba[..., 3:]) * back
        return SceneRender(rgb.clamp(0.0, 1.0), rgba[..., 3:], depth[..., None], normal)

    def surface_points(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """n points uniform over the surface: (points, shaded colours, outward normals), each [n, 3]."""
        rng = np.random.default_rng(seed)
        batches: list[tuple[np.ndarray, np.ndarray]] = []
        while sum(len(p) for p, _ in batches) < n:
            batches.append(_cross(self._solids, rng, 4 * n, sdf.BALL))
        points = np.concatenate([p for p, _ in batches])
        parts = np.concatenate([i for _, i in batches])
        chosen = rng.permutation(len(points))[:n]
        points, parts = points[chosen], parts[chosen]
        normals, shades = np.empty_like(points), np.empty(len(points))
        kernels.normals_and_shades(self._solids, points, parts, normals, shades)
        colors = self._solids.colors[parts] * shades[:, None]
        return (
            torch.from_numpy(points).float(),
            torch.from_numpy(colors).float(),
            torch.from_numpy(normals).float(),
        )


@lru_cache(maxsize=2048)
def _scene(caption: Caption) -> Scene:
    return Scene(caption)


def scene_from_prompt(prompt: str) -> Scene:
    """The scene of a caption; a view phrase at its end is ignored."""
    return _scene(parse(prompt)[0])
