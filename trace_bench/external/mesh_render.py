"""Images of a mesh from our cameras: its own colours, unlit, like those of 3D Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from trace_bench.external.mesh import TriangleMesh
from trace_bench.render import Render

if TYPE_CHECKING:
    from trace_bench.cameras import Cameras

SUPERSAMPLING = 2  # samples per pixel and axis


@dataclass(frozen=True)
class VisibleMesh:
    """A mesh that the evaluation rig can render; computed on the CPU for any camera device."""

    mesh: TriangleMesh
    views_matter: ClassVar[bool] = True

    def render(self, cameras: Cameras, background: Tensor, with_normals: bool = False) -> Render:
        """Colours over `background` ([3] or [B, 3]), coverage, mean depth and normals of B views."""
        device = cameras.c2w.device
        backgrounds = background.expand(len(cameras), 3).double().cpu().numpy()
        views = [self._view(cameras, i, backgrounds[i]) for i in range(len(cameras))]
        rgb, alpha, depth, normal = (
            torch.from_numpy(np.stack(found)).float().to(device) for found in zip(*views, strict=True)
        )
        return Render(rgb, alpha, depth, normal if with_normals else None)

    @cached_property
    def _centres(self) -> np.ndarray:
        return self.mesh.corners().mean(axis=1)

    @cached_property
    def _normals(self) -> np.ndarray:
        return self.mesh.normals()

    def _view(self, cameras: Cameras, i: int, background: np.ndarray) -> tuple[np.ndarray, ...]:
        """(rgb [H, W, 3], alpha [H, W, 1], depth [H, W, 1], normal [H, W, 3]) of view i."""
        seen, weights, depth = self._sample(cameras, i)
        hit = seen >= 0
        face = seen[hit]
        colors, normals = np.zeros((*seen.shape, 3)), np.zeros((*seen.shape, 3))
        colors[hit] = self.mesh.colors_at(face, weights[hit])
        eye = cameras.c2w[i, :3, 3].double().cpu().numpy()
        towards, outward = self._centres[face] - eye, self._normals[face]
        behind = (towards * outward).sum(axis=-1, keepdims=True) > 0.0
        normals[hit] = np.where(behind, -outward, outward)
        alpha = _average(hit[..., None].astype(np.float64))
        rgb = _average(colors) + (1.0 - alpha) * background
        depth = _average(np.where(hit, depth, 0.0)[..., None]) / np.maximum(alpha, 1e-10)
        normal = _average(normals)
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        return rgb, alpha, depth, normal / np.maximum(length, 1e-10)

    def _sample(self, cameras: Cameras, i: int) -> tuple[np.ndarray, ...]:
        """(face or -1 [h, w], barycentric weights [h, w, 3], depth [h, w]) on the sample grid."""
        from trace_bench.external.raster import draw

        viewmat = cameras.viewmats[i].double().cpu().numpy()
        pinhole = cameras.Ks[i].double().cpu().numpy() * SUPERSAMPLING
        inside = self.mesh.vertices @ viewmat[:3, :3].T + viewmat[:3, 3]
        z = inside[:, 2]
        safe = np.where(z > 0.0, z, 1.0)  # corners behind the camera are not drawn
        x = inside[:, 0] / safe * pinhole[0, 0] + pinhole[0, 2]
        y = inside[:, 1] / safe * pinhole[1, 1] + pinhole[1, 2]
        shape = cameras.height * SUPERSAMPLING, cameras.width * SUPERSAMPLING
        depth, seen = np.full(shape, np.inf), np.full(shape, -1, np.int64)
        weights = np.zeros((*shape, 3))
        draw(x, y, z, self.mesh.faces, depth, seen, weights)
        return seen, weights, depth


def _average(values: np.ndarray) -> np.ndarray:
    """Mean over each pixel's samples: [h, w, C] -> [H, W, C]."""
    h, w, c = values.shape
    n = SUPERSAMPLING
    return values.reshape(h // n, n, w // n, n, c).mean(axis=(1, 3))
