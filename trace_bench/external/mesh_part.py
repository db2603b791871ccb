"""One part of a mesh file as trimesh reads it, with the colours that the file means."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trace_bench.system.errors import TraceBenchError

GREY = 0.5  # for meshes without colours


@dataclass(frozen=True)
class MeshPart:
    """F triangles over V vertices, with one material."""

    vertices: np.ndarray  # [V, 3] float64
    faces: np.ndarray  # [F, 3] int64
    colors: np.ndarray  # [F, 3, 3] float32 in [0, 1], sRGB of each face's corners
    uv: np.ndarray | None = None  # [F, 3, 2] float32, v upwards, if there is a texture
    texture: np.ndarray | None = None  # [H, W, 3] uint8


def loaded(path: Path, content: bytes, others: Mapping[str, Path | bytes], **options: Any) -> list[Any]:
    """trimesh's meshes of a file; it gets these other files and no more."""
    import trimesh

    logging.getLogger("trimesh").setLevel(logging.ERROR)
    try:
        scene = trimesh.load_scene(
            io.BytesIO(content), path.suffix[1:].lower(), resolver=_others(others), process=False, **options
        )
        parts = scene.dump()
    except Exception as error:  # each format's reader raises different errors
        raise TraceBenchError(f"{path} cannot be read as a mesh ({first_line(error)}).") from error
    meshes = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    for mesh in meshes:
        if mesh.vertices.shape[1] != 3:
            raise TraceBenchError(f"{path} has vertices without three coordinates; repair it.")
        beyond = (mesh.faces < 0) | (mesh.faces >= len(mesh.vertices))
        if bad := int(beyond.any(axis=-1).sum()):
            raise TraceBenchError(
                f"{path} has {bad} of {len(mesh.faces)} triangles with corners that do not exist; repair it."
            )
    for mesh in meshes:  # `dump` copies a part without these
        visual: Any = mesh.visual
        attributes = getattr(scene.geometry[mesh.metadata["name"]].visual, "vertex_attributes", {})
        if "color" in attributes:
            visual.vertex_attributes["color"] = attributes["color"]
    return meshes


def _others(files: Mapping[str, Path | bytes]) -> Any:
    """trimesh's access to files beside the mesh."""
    from trimesh.resolvers import Resolver

    class Known(Resolver):
        def __init__(self) -> None:
            pass

        def get(self, key: str) -> bytes:
            found = files[key.strip()]
            return found if isinstance(found, bytes) else found.read_bytes()

        def keys(self) -> list[str]:
            return list(files)

        # trimesh requires these two, for writing and for folders in archives; loading calls neither.
        def write(self, name: str, data: Any) -> None:
            raise TraceBenchError(f"A mesh is only read, so {name} cannot be written.")

        def namespaced(self, namespace: str) -> Any:
            raise TraceBenchError(f"A mesh has no folders beside it, so there is no {namespace}.")

    return Known()


def part_of(
    mesh: Any, corners: np.ndarray, uv: np.ndarray | None = None, picture: np.ndarray | None = None
) -> MeshPart:
    """`corners`: broadcast to [F, 3, 3]; uv [V, 2]; picture [H, W, 4], whose alpha is ignored."""
    faces = np.asarray(mesh.faces, np.int64)
    colors = np.ascontiguousarray(np.broadcast_to(corners, (len(faces), 3, 3)), dtype=np.float32)
    vertices = np.asarray(mesh.vertices, np.float64)
    if picture is None or uv is None:
        return MeshPart(vertices, faces, colors)
    return MeshPart(vertices, faces, colors, np.asarray(uv, np.float32)[faces], picture[..., :3])


def own_colors(mesh: Any) -> np.ndarray:
    """Colours of the corners from vertices or faces as trimesh reads them; grey if there are none."""
    visual = mesh.visual
    if visual.kind == "vertex":
        return (np.asarray(visual.vertex_colors)[:, :3] / np.float32(255.0))[np.asarray(mesh.faces)]
    if visual.kind == "face":
        return np.asarray(visual.face_colors)[:, None, :3] / np.float32(255.0)
    return np.full(3, GREY, np.float32)


def opened(path: Path) -> np.ndarray:
    """The image in a file as RGBA [H, W, 4] uint8."""
    try:
        with Image.open(path) as picture:
            return decoded(picture, str(path))
    except (OSError, Image.DecompressionBombError) as error:
        raise TraceBenchError(f"{path} is not a readable image ({first_line(error)}).") from error


def decoded(picture: Image.Image, what: str) -> np.ndarray:
    """An image as RGBA [H, W, 4] uint8; `what` names it in errors."""
    try:
        return np.asarray(picture.convert("RGBA"))
    except (OSError, SyntaxError, ValueError) as error:
        raise TraceBenchError(f"{what} is not a readable image ({first_line(error)}).") from error


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
