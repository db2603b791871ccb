"""Parts of a .ply with the colours of its texture, vertices or faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trace_bench.external.mesh_part import MeshPart, loaded, opened, own_colors, part_of
from trace_bench.representations.gaussians.ply import read_vertices
from trace_bench.representations.stored_colors import color_columns, unit_colors
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.mesh_files import ply_header, ply_texture

_BYTES = {"uchar", "uint8"}


def read_ply(path: Path) -> list[MeshPart]:
    texture = ply_texture(path)
    meshes = loaded(path, path.read_bytes(), {}, fix_texture=texture is not None)
    if texture is None:
        return [part_of(mesh, _ply_colors(mesh, path)) for mesh in meshes]
    if any(getattr(mesh.visual, "uv", None) is None for mesh in meshes):
        raise TraceBenchError(f"{path} has no texture coordinates for {texture.name}; export it with them.")
    return [part_of(mesh, np.ones(3), mesh.visual.uv, opened(texture)) for mesh in meshes]


def _ply_colors(mesh: Any, path: Path) -> np.ndarray:
    """Colours of the corners; those of vertices from the file, where trimesh would misread them."""
    elements = ply_header(path).split("\nelement ")[1:]
    kinds = {element.split()[0]: _property_types(element) for element in elements if element.strip()}
    vertices, faces = kinds.get("vertex", {}), kinds.get("face", {})
    if any(faces[name] not in _BYTES for name in color_columns(list(faces)) or ()):
        raise TraceBenchError(f"{path} has face colours that are no bytes; store them as uchar, 0 to 255.")
    columns = color_columns(list(vertices))
    read_well = mesh.visual.kind == "vertex" and all(vertices[name] in _BYTES for name in columns or ())
    if columns is None or mesh.visual.kind == "face" or read_well:
        return own_colors(mesh)
    table = read_vertices(path)
    return unit_colors([table[column] for column in columns], str(path))[np.asarray(mesh.faces)]


def _property_types(element: str) -> dict[str, str]:
    """name -> type of the scalar properties of an element of a header."""
    rows = [line.split() for line in element.split("\n")]
    return {row[2]: row[1] for row in rows if len(row) == 3 and row[0] == "property"}
