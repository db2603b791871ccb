"""A coarse toy scene, like the output of a fast native 3D model: right overall, wrong in detail.

It is built from the true scene, to demonstrate refinement from a native init. It is not a result: a run with
this init has seen the answer, blurred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from trace_bench.representations.points import PointCloud
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng
    from trace_bench.toyworld import Scene

HALF_SIDE = 0.85  # of the voxel cube, which contains every scene
_PER_VOXEL = 3  # samples of the true scene per voxel and axis


@dataclass(frozen=True)
class ToyCoarse:
    """The prompt's scene as voxels.

    resolution: voxels a side.
    threshold: a voxel is occupied if its blurred, noisy share inside the scene exceeds this. Below 0.5, the
        shape is too fat, as blurred shapes are, and thin parts survive.
    blur: standard deviation of the blur, in voxels.
    noise: standard deviation of the noise on the share.
    color_levels: number of values that a colour channel is rounded to.
    color_noise: standard deviation of the noise on a channel before rounding.
    n: maximum number of points, chosen at random and jittered within their voxels.
    """

    resolution: int = 16
    threshold: float = 0.3
    blur: float = 0.7
    noise: float = 0.08
    color_levels: int = 4
    color_noise: float = 0.12
    n: int = 600

    def __post_init__(self) -> None:
        if not (4 <= self.resolution <= 64 and self.n >= 1 and self.color_levels >= 2):
            raise TraceBenchError(
                "init=toy_coarse needs resolution from 4 to 64, n >= 1 and color_levels >= 2, but got "
                f"resolution={self.resolution}, n={self.n}, color_levels={self.color_levels}."
            )
        if min(self.blur, self.noise, self.color_noise) < 0.0:
            raise TraceBenchError("init=toy_coarse needs blur, noise and color_noise of at least 0.")

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = "") -> PointCloud:
        from trace_bench.toyworld import scene_from_prompt

        scene = scene_from_prompt(prompt)
        seed = int(torch.randint(2**62, (), generator=rng.generator("init_coarse")))
        random = np.random.default_rng(seed)
        share = self._occupancy(scene) + self.noise * random.normal(size=(self.resolution,) * 3)
        voxels = np.argwhere(share > self.threshold)
        if len(voxels) == 0:  # the scene is thinner than a voxel everywhere
            voxels = np.argwhere(share >= np.quantile(share, 0.99))
        voxels = voxels[np.sort(random.permutation(len(voxels))[: self.n])]
        side = 2.0 * HALF_SIDE / self.resolution
        colors = self._colors(scene, (voxels + 0.5) * side - HALF_SIDE, random)
        positions = (voxels + random.random(voxels.shape)) * side - HALF_SIDE
        return PointCloud(torch.from_numpy(positions).float(), torch.from_numpy(colors).float()).to(device)

    def _occupancy(self, scene: Scene) -> np.ndarray:
        """Blurred share of each voxel inside the scene: [R, R, R]."""
        from scipy.ndimage import gaussian_filter

        fine = self.resolution * _PER_VOXEL
        ticks = ((np.arange(fine) + 0.5) / fine * 2.0 - 1.0) * HALF_SIDE
        points = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1)
        inside = (scene.distance(points.reshape(-1, 3)) < 0.0).astype(np.float64)
        blocks = inside.reshape((self.resolution, _PER_VOXEL) * 3)
        return gaussian_filter(blocks.mean(axis=(1, 3, 5)), self.blur, mode="constant")

    def _colors(self, scene: Scene, centres: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Colours [K, 3] of the nearest surface points, with noise and rounding."""
        from scipy.spatial import cKDTree

        points, true, _ = scene.surface_points(4000, seed=0)
        nearest = cKDTree(points.numpy()).query(centres)[1]
        noisy = true.numpy()[nearest] + self.color_noise * random.normal(size=centres.shape)
        steps = self.color_levels - 1
        return np.round(np.clip(noisy, 0.0, 1.0) * steps) / steps
