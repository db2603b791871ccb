"""Parts of a .glb with the colours of its vertices, materials and textures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trace_bench.external.mesh_part import GREY, MeshPart, decoded, first_line, loaded, part_of
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.glb_header import (
    GlbMaterial,
    glb_files,
    image_index,
    material_of,
    read_header,
    with_header,
)
from trace_bench.system.srgb import to_linear, to_srgb

#: extensions that change nothing in an unlit picture of the base colour, or that trimesh reads
_EXTENSIONS = ("EXT_texture_webp", "KHR_lights_punctual", "KHR_materials_", "KHR_texture_transform")


def read_glb(path: Path) -> list[MeshPart]:
    """Colour of the vertices x factor x texture, multiplied in linear light (glTF 2.0, 3.9.2)."""
    try:
        header, end = read_header(path)
        materials = [material_of(material) for material in header.get("materials", [])]
        _check_glb(header, path)
        numbered = _with_numbered_materials(header, materials)
        by_trimesh = "trimesh" in str(header.get("asset", {}).get("generator", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise TraceBenchError(f"{path} cannot be read as a mesh ({first_line(error)}).") from error
    meshes = loaded(path, with_header(numbered, path.read_bytes()[end:]), glb_files(path))
    return [_glb_part(mesh, materials, by_trimesh, path) for mesh in meshes]


def _check_glb(header: Mapping[str, Any], path: Path) -> None:
    """Refuse what trimesh would read as something else."""
    for name in header.get("extensionsRequired", []):
        if not name.startswith(_EXTENSIONS):
            raise TraceBenchError(f"{path} needs {name}, which is not supported; export it without.")
    accessors = header.get("accessors", [])
    used: set[int] = set()
    for mesh in header.get("meshes", []):
        for primitive in mesh["primitives"]:
            attributes = primitive["attributes"]
            used |= {attributes[name] for name in ("POSITION", "TEXCOORD_0") if name in attributes}
    if any(accessors[i].get("normalized") for i in used) or any("sparse" in a for a in accessors):
        raise TraceBenchError(
            f"{path} has quantised or sparse coordinates, which are not supported; export it uncompressed."
        )


def _with_numbered_materials(header: Mapping[str, Any], materials: Sequence[GlbMaterial]) -> dict[str, Any]:
    """The header with a name, m<i>, and the texture of each material only; m<n> is for parts without one."""
    named = []
    for i, material in enumerate(materials):
        image = image_index(header, material)
        info = {} if image is None or material.texture is None else {"index": material.texture["index"]}
        named.append({"name": f"m{i}", "pbrMetallicRoughness": {"baseColorTexture": info} if info else {}})
    named.append({"name": f"m{len(materials)}", "pbrMetallicRoughness": {}})
    meshes = [
        {**mesh, "primitives": [{"material": len(materials), **part} for part in mesh["primitives"]]}
        for mesh in header.get("meshes", [])
    ]
    return {**header, "materials": named, "meshes": meshes}


def _glb_part(mesh: Any, materials: Sequence[GlbMaterial], by_trimesh: bool, path: Path) -> MeshPart:
    number = int(mesh.visual.material.name[1:])
    stored = mesh.visual.vertex_attributes.get("color")
    if number == len(materials) and stored is None:
        return part_of(mesh, np.full(3, GREY, np.float32))
    material = materials[number] if number < len(materials) else GlbMaterial()
    vertex = np.ones((1, 4)) if stored is None else _rgba(np.asarray(stored))
    picture = None
    if material.texture is not None:
        if problem := material.texture_problem():
            raise TraceBenchError(f"{path} cannot be shown as it is meant: {problem}; export it without.")
        picture = mesh.visual.material.baseColorTexture
        if picture is None or mesh.visual.uv is None:
            raise TraceBenchError(f"{path} has a texture that cannot be read; export it as PNG or JPEG.")
        picture = decoded(picture, f"A texture of {path}")
    _check_opaque(material, vertex[:, 3], picture, path)
    # trimesh writes the colours of vertices as they are in images; the format says linear
    linear = (to_linear(vertex[:, :3]) if by_trimesh else vertex[:, :3]) * np.array(material.factor[:3])
    colors = to_srgb(linear)
    return part_of(
        mesh, colors if stored is None else colors[np.asarray(mesh.faces)], mesh.visual.uv, picture
    )


def _rgba(stored: np.ndarray) -> np.ndarray:
    """COLOR_0 as float64 [V, 4] in [0, 1]."""
    largest = float(np.iinfo(stored.dtype).max) if np.issubdtype(stored.dtype, np.integer) else 1.0
    rgba = np.clip(stored.astype(np.float64) / largest, 0.0, 1.0)
    return rgba if rgba.shape[1] == 4 else np.concatenate([rgba, np.ones((len(rgba), 1))], axis=1)


def _check_opaque(
    material: GlbMaterial, vertex_alpha: np.ndarray, picture: np.ndarray | None, path: Path
) -> None:
    """Refuse a part that its alpha mode makes transparent somewhere."""
    if material.alpha_mode == "OPAQUE":
        return
    texture = 1.0
    if picture is not None:
        texture = float(picture[..., 3].min()) / 255.0
    least = float(vertex_alpha.min()) * material.factor[3] * texture
    wanted = material.alpha_cutoff if material.alpha_mode == "MASK" else 1.0
    if least < wanted - 0.5 / 255.0:
        raise TraceBenchError(
            f"{path} has a material with alphaMode {material.alpha_mode} and transparent parts, which are "
            "not supported; make it OPAQUE, or render the asset elsewhere and use its images."
        )
