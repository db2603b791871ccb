"""A triangle mesh with colours from vertices, faces or textures, as stored in files (read by trimesh)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trace_bench.external.placement import Placement
from trace_bench.system.errors import TraceBenchError

SUFFIXES = (".ply", ".obj", ".glb", ".stl", ".off")
GREY = 0.5  # for meshes without colours


@dataclass(frozen=True)
class TriangleMesh:
    """F triangles over V vertices, world units.

    A face's colour is the interpolated colour of its corners, times its texture if it has one.
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

    def colors_at(self, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Colours [K, 3] float32 at points of faces [K], given by barycentric weights [K, 3]."""
        weights = weights.astype(np.float32)
        colors = (self.colors[face] * weights[..., None]).sum(axis=1)
        index = self.texture[face]
        for i, picture in enumerate(self.textures):
            here = index == i
            uv = (self.uv[face[here]] * weights[here, :, None]).sum(axis=1)
            colors[here] *= _look_up(picture, uv)
        return colors

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n points uniform over the surface: (points [n, 3] float64, colours [n, 3] float32)."""
        a, b, c = np.moveaxis(self.corners(), 1, 0)
        area = np.linalg.norm(np.cross(b - a, c - a), axis=-1)
        if area.sum() == 0.0:
            raise TraceBenchError("The mesh has no area; points cannot be sampled on it.")
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
    """The triangles of a .ply, .obj, .glb, .stl or .off, with all its parts joined."""
    import trimesh

    if not path.is_file():
        raise TraceBenchError(f"The file {path} does not exist; use the path of a mesh.")
    if path.suffix.lower() not in SUFFIXES:
        raise TraceBenchError(f"{path} is not a supported mesh; use one of {', '.join(SUFFIXES)}.")
    logging.getLogger("trimesh").setLevel(logging.ERROR)
    try:
        parts = trimesh.load_scene(str(path), process=False).dump()
    except Exception as error:  # each format's reader raises different errors
        raise TraceBenchError(f"{path} cannot be read as a mesh ({_first_line(error)}).") from error
    parts = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if not parts:
        raise TraceBenchError(f"{path} has no triangles; use a mesh with faces.")
    return _joined(parts, path)


def _joined(parts: list[Any], path: Path) -> TriangleMesh:
    vertices, faces, colors, uvs, texture = [], [], [], [], []
    textures: list[np.ndarray] = []
    offset = 0
    for part in parts:
        corners, uv, picture = _colours(part)
        vertices.append(np.asarray(part.vertices, np.float64))
        faces.append(np.asarray(part.faces, np.int64) + offset)
        colors.append(corners)
        uvs.append(uv)
        texture.append(np.full(len(part.faces), -1 if picture is None else len(textures), np.int64))
        if picture is not None:
            textures.append(picture)
        offset += len(part.vertices)
    mesh = TriangleMesh(
        np.concatenate(vertices),
        np.concatenate(faces),
        np.concatenate(colors),
        np.concatenate(uvs),
        np.concatenate(texture),
        tuple(textures),
    )
    if not np.isfinite(mesh.vertices).all():
        raise TraceBenchError(f"{path} has NaN or infinite vertices.")
    return mesh


def _colours(part: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(corner colours [F, 3, 3], corner uv [F, 3, 2], texture [H, W, 3] or None) of one part."""
    faces, visual = np.asarray(part.faces), part.visual
    colors = np.full((len(faces), 3, 3), GREY, np.float32)
    uv = np.zeros((len(faces), 3, 2), np.float32)
    if visual.kind == "vertex":
        colors = (np.asarray(visual.vertex_colors)[:, :3] / np.float32(255.0))[faces]
    elif visual.kind == "face":
        colors = np.repeat((np.asarray(visual.face_colors)[:, None, :3] / np.float32(255.0)), 3, axis=1)
    elif visual.kind == "texture":
        material = visual.material
        picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        factor = getattr(material, "baseColorFactor", None) if hasattr(material, "baseColorFactor") else None
        if picture is None or visual.uv is None:
            colors[:] = np.asarray(material.main_color)[:3] / np.float32(255.0)
            return colors, uv, None
        colors[:] = 1.0 if factor is None else np.asarray(factor)[:3] / np.float32(255.0)
        return colors, np.asarray(visual.uv, np.float32)[faces], np.asarray(picture.convert("RGB"))
    return colors.astype(np.float32), uv, None


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
