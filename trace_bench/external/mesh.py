"""A triangle mesh with colours from vertices, faces or textures, as stored in files (read by trimesh)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from trace_bench.external.glb import read_glb
from trace_bench.external.mesh_part import MeshPart, loaded, own_colors, part_of
from trace_bench.external.obj import read_obj
from trace_bench.external.placement import Placement
from trace_bench.external.ply import read_ply
from trace_bench.representations.splat_values import LARGEST
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.srgb import to_linear, to_srgb

SUFFIXES = (".ply", ".obj", ".glb", ".stl", ".off")
_READERS = {".obj": read_obj, ".glb": read_glb, ".ply": read_ply}


@dataclass(frozen=True)
class TriangleMesh:
    """F triangles over V vertices, world units.

    A face's colour is the interpolated colour of its corners, times its texture if it has one; the product is
    taken in linear light.
    """

    vertices: np.ndarray  # [V, 3] float64
    faces: np.ndarray  # [F, 3] int64
    colors: np.ndarray  # [F, 3, 3] float32 in [0, 1], RGB of each face's corners
    uv: np.ndarray  # [F, 3, 2] float32, v upwards; 0 if there is no texture
    texture: np.ndarray  # [F] int64, index into `textures`, -1 for none
    textures: tuple[np.ndarray, ...]  # [H, W, 3] uint8 each

    def corners(self) -> np.ndarray:
        """[F, 3, 3]: face, corner, xyz."""
        return self.vertices[self.faces]

    def normals(self) -> np.ndarray:
        """Unit face normals [F, 3] from the corner order; 0 for a face without area."""
        a, b, c = np.moveaxis(self.corners(), 1, 0)
        normals = np.cross(b - a, c - a)
        return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-20)

    def areas(self) -> np.ndarray:
        """Areas of the faces [F], world units squared."""
        a, b, c = np.moveaxis(self.corners(), 1, 0)
        return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=-1)

    def colors_at(self, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Colours [K, 3] float32 at points of faces [K], given by barycentric weights [K, 3]."""
        weights = weights.astype(np.float32)
        colors = (self.colors[face] * weights[..., None]).sum(axis=1)
        index = self.texture[face]
        for i, picture in enumerate(self.textures):
            here = index == i
            uv = (self.uv[face[here]] * weights[here, :, None]).sum(axis=1)
            colors[here] = _tinted(_look_up(picture, uv), colors[here])
        return colors

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n points uniform over the surface: (points [n, 3] float64, colours [n, 3] float32)."""
        area = self.areas()
        face = rng.choice(len(area), size=n, p=area / area.sum())
        u, v = rng.random(n), rng.random(n)
        beyond = u + v > 1.0
        u, v = np.where(beyond, 1.0 - u, u), np.where(beyond, 1.0 - v, v)
        weights = np.stack([1.0 - u - v, u, v], axis=-1)
        points = (self.corners()[face] * weights[..., None]).sum(axis=1)
        return points, self.colors_at(face, weights)

    def placed(self, placement: Placement) -> TriangleMesh:
        vertices, _ = placement(torch.from_numpy(self.vertices))
        return replace(self, vertices=vertices.numpy())


def load_mesh(path: Path) -> TriangleMesh:
    """The triangles of a .ply, .obj, .glb, .stl or .off, with all its parts joined.

    Raises: TraceBenchError if the file cannot be read, has no surface, or has colours that are not supported.
    """
    if not path.is_file():
        raise TraceBenchError(f"The file {path} does not exist; use the path of a mesh.")
    if path.suffix.lower() not in SUFFIXES:
        raise TraceBenchError(f"{path} is not a supported mesh; use one of {', '.join(SUFFIXES)}.")
    parts = _READERS.get(path.suffix.lower(), _read_plain)(path)
    if not parts:
        raise TraceBenchError(f"{path} has no triangles; use a mesh with faces.")
    mesh = _joined(parts)
    usable = (np.abs(mesh.vertices) <= LARGEST).all(axis=-1)
    if bad := int((~usable).sum()):
        raise TraceBenchError(
            f"{path} has NaN, infinite or too large positions at {bad} of {len(usable)} vertices; repair it."
        )
    if not mesh.areas().any():
        raise TraceBenchError(f"{path} has only triangles without area; use a mesh with a surface.")
    return mesh


def _read_plain(path: Path) -> list[MeshPart]:
    return [part_of(mesh, own_colors(mesh)) for mesh in loaded(path, path.read_bytes(), {})]


def _joined(parts: list[MeshPart]) -> TriangleMesh:
    faces, uvs, texture = [], [], []
    textures: list[np.ndarray] = []
    offset = 0
    for part in parts:
        n = len(part.faces)
        faces.append(part.faces + offset)
        uvs.append(np.zeros((n, 3, 2), np.float32) if part.uv is None else part.uv)
        texture.append(np.full(n, -1 if part.texture is None else len(textures), np.int64))
        if part.texture is not None:
            textures.append(part.texture)
        offset += len(part.vertices)
    return TriangleMesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate(faces),
        np.concatenate([part.colors for part in parts]),
        np.concatenate(uvs),
        np.concatenate(texture),
        tuple(textures),
    )


def _tinted(texture: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Texture [K, 3] times colours [K, 3], both sRGB; a white colour leaves the texture as it is."""
    tinted = (colors != 1.0).any(axis=-1)
    product = texture.copy()
    product[tinted] = to_srgb(to_linear(texture[tinted]) * to_linear(colors[tinted]))
    return product


def _look_up(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear look-up with wrap-around: uv [K, 2], v upwards -> [K, 3] float32 in [0, 1]."""
    height, width = picture.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (1.0 - uv[:, 1]) * height - 0.5
    left, top = np.floor(x), np.floor(y)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    j, i = left.astype(np.int64), top.astype(np.int64)
    j0, j1, i0, i1 = j % width, (j + 1) % width, i % height, (i + 1) % height
    above = picture[i0, j0] * (1.0 - fx) + picture[i0, j1] * fx
    below = picture[i1, j0] * (1.0 - fx) + picture[i1, j1] * fx
    return ((above * (1.0 - fy) + below * fy) / 255.0).astype(np.float32)
