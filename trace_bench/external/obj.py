"""Parts of an .obj with the colours of its textures, vertices or materials."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trace_bench.external.mesh_part import GREY, MeshPart, loaded, opened, own_colors, part_of
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.named_files import printable
from trace_bench.system.obj_materials import ObjMaterial, obj_materials, with_materials_numbered

_COLORED = 7  # words of a line `v x y z r g b`
_LIMIT = 1.05  # vertex colours are 0 to 1


def read_obj(path: Path) -> list[MeshPart]:
    """A texture is shown as it is; else the colours of the vertices; else the diffuse colour."""
    content = path.read_bytes()
    found = obj_materials(path)
    has_colors = _has_vertex_colors(path, content)
    textured = any(found.materials[name].texture for name in found.used if name in found.materials)
    names = [n for n in found.used if n in found.materials and (textured or not has_colors)]
    undefined = [name for name in found.used if name not in found.materials]
    if undefined and found.libraries and not has_colors:
        raise TraceBenchError(
            f"{path} uses the material {printable(undefined[0])}, which {found.libraries[0].name} does not "
            "define; add it, or remove the usemtl line."
        )
    untextured = [n for n in found.used if n not in found.materials or not found.materials[n].texture]
    if has_colors and textured and untextured:
        raise TraceBenchError(
            f"{path} mixes vertex colours, textures and materials without a texture, which is not supported; "
            "give every material a texture, or remove the vertex colours."
        )
    library = "".join(f"newmtl m{i}\n" for i in range(len(names))).encode()
    numbered = with_materials_numbered(content, names)
    if has_colors and not textured:
        numbered = _without_uv(numbered)  # beside texture coordinates, trimesh drops the colours of vertices
    meshes = loaded(path, numbered, {"materials": library})
    return [_obj_part(mesh, found.materials, names, path) for mesh in meshes]


def _obj_part(mesh: Any, materials: Mapping[str, ObjMaterial], names: Sequence[str], path: Path) -> MeshPart:
    if mesh.visual.kind != "texture":
        return part_of(mesh, own_colors(mesh))
    name = str(mesh.visual.material.name)
    material = materials[names[int(name[1:])]] if name[:1] == "m" and name[1:].isdecimal() else None
    if material is None:
        return part_of(mesh, np.full(3, GREY, np.float32))
    if material.texture is None:
        return part_of(mesh, np.full(3, GREY) if material.diffuse is None else np.array(material.diffuse))
    if mesh.visual.uv is None:
        raise TraceBenchError(
            f"{path} has no texture coordinates for the texture {material.texture.name}; export it with them."
        )
    return part_of(mesh, np.ones(3), mesh.visual.uv, opened(material.texture))


def _has_vertex_colors(path: Path, content: bytes) -> bool:
    """Whether the lines `v` of an .obj have colours; refuses colours above 1, and on some lines only."""
    first = re.search(rb"^v [^\r\n]*", content, re.MULTILINE)
    if first is None or len(first[0].split()) < _COLORED:
        return False
    lines = [line.split() for line in content.splitlines() if line[:2] == b"v "]
    if min(map(len, lines)) < _COLORED:
        raise TraceBenchError(f"{path} has colours at some of its vertices only; give all of them a colour.")
    try:
        largest = max(float(value) for line in lines for value in line[4:_COLORED])
    except ValueError as error:
        raise TraceBenchError(f"{path} cannot be read as a mesh ({error}).") from error
    if not largest <= _LIMIT:
        raise TraceBenchError(f"{path} has vertex colours up to {largest:g}; store them from 0 to 1.")
    return True


def _without_uv(content: bytes) -> bytes:
    return b"\n".join(line for line in content.splitlines() if line[:3] != b"vt ")
