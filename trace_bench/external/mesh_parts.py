"""The parts of a mesh file as trimesh reads them, each with the colours that the file means."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trace_bench.external.srgb import to_linear, to_srgb
from trace_bench.representations.gaussians.ply import read_vertices
from trace_bench.representations.stored_colors import color_columns, unit_colors
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.glb_header import (
    GlbMaterial,
    glb_files,
    image_index,
    material_of,
    read_header,
    with_header,
)
from trace_bench.system.mesh_files import ply_header, ply_texture
from trace_bench.system.named_files import printable
from trace_bench.system.obj_materials import ObjMaterial, obj_materials, with_materials_numbered

GREY = 0.5  # for meshes without colours
_LIMIT = 1.05  # vertex colours of an .obj are 0 to 1
#: extensions of glTF that change nothing in an unlit picture of the base colour, or that trimesh reads
_EXTENSIONS = ("EXT_texture_webp", "KHR_lights_punctual", "KHR_materials_", "KHR_texture_transform")
_BYTE_COLORS = {"uchar", "uint8"}


@dataclass(frozen=True)
class MeshPart:
    """F triangles over V vertices, with one material."""

    vertices: np.ndarray  # [V, 3] float64
    faces: np.ndarray  # [F, 3] int64
    colors: np.ndarray  # [F, 3, 3] float32 in [0, 1], sRGB of each face's corners
    uv: np.ndarray | None = None  # [F, 3, 2] float32, v upwards, if there is a texture
    texture: np.ndarray | None = None  # [H, W, 3] uint8


def read_parts(path: Path) -> list[MeshPart]:
    """The parts of a .ply, .obj, .glb, .stl or .off with triangles.

    Raises: TraceBenchError if the file cannot be read, or means colours that are not supported.
    """
    readers = {".obj": _read_obj, ".glb": _read_glb, ".ply": _read_ply}
    return readers.get(path.suffix.lower(), _read_plain)(path)


def _loaded(path: Path, content: bytes, others: Mapping[str, Path | bytes], **options: Any) -> list[Any]:
    """trimesh's meshes of a file; it gets these other files and no more."""
    import trimesh

    logging.getLogger("trimesh").setLevel(logging.ERROR)
    try:
        scene = trimesh.load_scene(
            io.BytesIO(content), path.suffix[1:].lower(), resolver=_others(others), process=False, **options
        )
        parts = scene.dump()
    except Exception as error:  # each format's reader raises different errors
        raise TraceBenchError(f"{path} cannot be read as a mesh ({_first_line(error)}).") from error
    meshes = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    for mesh in meshes:  # `dump` copies a part without these
        attributes = getattr(scene.geometry[mesh.metadata["name"]].visual, "vertex_attributes", {})
        if "color" in attributes:
            mesh.visual.vertex_attributes["color"] = attributes["color"]
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

        def write(self, name: str, data: Any) -> None:
            raise NotImplementedError

        def namespaced(self, namespace: str) -> Any:
            raise NotImplementedError

    return Known()


def _part(mesh: Any, corners: np.ndarray, uv: Any = None, picture: Any = None) -> MeshPart:
    faces = np.asarray(mesh.faces, np.int64)
    colors = np.ascontiguousarray(np.broadcast_to(corners, (len(faces), 3, 3)), dtype=np.float32)
    vertices = np.asarray(mesh.vertices, np.float64)
    if picture is None or uv is None:
        return MeshPart(vertices, faces, colors)
    return MeshPart(vertices, faces, colors, np.asarray(uv, np.float32)[faces], _rgb(picture))


def _read_plain(path: Path) -> list[MeshPart]:
    return [_part(mesh, _own_colors(mesh)) for mesh in _loaded(path, path.read_bytes(), {})]


def _own_colors(mesh: Any) -> np.ndarray:
    """Colours of the corners from vertices or faces as trimesh reads them; grey if there are none."""
    visual = mesh.visual
    if visual.kind == "vertex":
        return (np.asarray(visual.vertex_colors)[:, :3] / np.float32(255.0))[np.asarray(mesh.faces)]
    if visual.kind == "face":
        return np.asarray(visual.face_colors)[:, None, :3] / np.float32(255.0)
    return np.full(3, GREY, np.float32)


# --- .obj -----------------------------------------------------------------------------------------------


def _read_obj(path: Path) -> list[MeshPart]:
    """A texture is shown as it is; without one, the colours of the vertices; without those, the diffuse colour."""
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
    if has_colors and textured and any(not m.texture for m in map(found.materials.get, found.used) if m):
        raise TraceBenchError(
            f"{path} mixes vertex colours, textures and materials without a texture, which is not supported; "
            "give every material a texture, or remove the vertex colours."
        )
    library = "".join(f"newmtl m{i}\n" for i in range(len(names))).encode()
    numbered = with_materials_numbered(content, names)
    if not textured:
        numbered = _without_uv(numbered)  # trimesh drops the colours of vertices that have texture coordinates
    meshes = _loaded(path, numbered, {"materials": library})
    return [_obj_part(mesh, found.materials, names, path) for mesh in meshes]


def _obj_part(mesh: Any, materials: Mapping[str, ObjMaterial], names: Sequence[str], path: Path) -> MeshPart:
    if mesh.visual.kind != "texture":
        return _part(mesh, _own_colors(mesh))
    name = str(mesh.visual.material.name)
    material = materials[names[int(name[1:])]] if name[:1] == "m" and name[1:].isdecimal() else None
    if material is None:
        return _part(mesh, np.full(3, GREY, np.float32))
    if material.texture is None:
        return _part(mesh, np.full(3, GREY) if material.diffuse is None else np.array(material.diffuse))
    if mesh.visual.uv is None:
        raise TraceBenchError(
            f"{path} has no texture coordinates for the texture {material.texture.name}; export it with them."
        )
    return _part(mesh, np.ones(3), mesh.visual.uv, _opened(material.texture))


def _has_vertex_colors(path: Path, content: bytes) -> bool:
    """Whether the lines `v` of an .obj have colours; refuses colours above 1."""
    lines = [line.split() for line in content.splitlines() if line[:2] == b"v "]
    if not lines or min(map(len, lines)) < 7:
        return False
    try:
        largest = max(float(value) for line in lines for value in line[4:7])
    except ValueError:
        return False  # trimesh says what is wrong
    if not largest <= _LIMIT:
        raise TraceBenchError(f"{path} has vertex colours up to {largest:g}; an .obj stores them from 0 to 1.")
    return True


def _without_uv(content: bytes) -> bytes:
    return b"\n".join(line for line in content.splitlines() if line[:3] != b"vt ")


# --- .ply -----------------------------------------------------------------------------------------------


def _read_ply(path: Path) -> list[MeshPart]:
    texture = ply_texture(path)
    meshes = _loaded(path, path.read_bytes(), {}, fix_texture=texture is not None)
    if texture is not None:
        return [_part(mesh, np.ones(3), mesh.visual.uv, _opened(texture)) for mesh in meshes]
    stored = _ply_vertex_colors(path)
    return [_part(m, _own_colors(m) if stored is None else stored[np.asarray(m.faces)]) for m in meshes]


def _ply_vertex_colors(path: Path) -> np.ndarray | None:
    """Colours [V, 3] of the vertices that trimesh would misread; None if it reads them, or there are none."""
    elements = ply_header(path).split("\nelement ")[1:]
    kinds = {element.split()[0]: _property_types(element) for element in elements if element.strip()}
    faces = kinds.get("face", {})
    of_faces = color_columns(list(faces))
    if of_faces and any(faces[name] not in _BYTE_COLORS for name in of_faces):
        raise TraceBenchError(f"{path} has face colours that are no bytes; store them as uchar from 0 to 255.")
    vertices = kinds.get("vertex", {})
    columns = color_columns(list(vertices))
    if columns is None or of_faces:
        return None
    table = read_vertices(path)
    return unit_colors([table[column] for column in columns], str(path))


def _property_types(element: str) -> dict[str, str]:
    """name -> type of the scalar properties of an element of a header."""
    rows = [line.split() for line in element.split("\n")]
    return {row[2]: row[1] for row in rows if len(row) == 3 and row[0] == "property"}


# --- .glb -----------------------------------------------------------------------------------------------


def _read_glb(path: Path) -> list[MeshPart]:
    """Colour of the vertices x factor x texture, multiplied in linear light (glTF 2.0, 3.9.2)."""
    try:
        header, chunks = read_header(path)
        materials = [material_of(material) for material in header.get("materials", [])]
        _check_glb(header, path)
        numbered = _with_numbered_materials(header, materials)
        by_trimesh = "trimesh" in str(header.get("asset", {}).get("generator", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise TraceBenchError(f"{path} cannot be read as a mesh ({_first_line(error)}).") from error
    meshes = _loaded(path, with_header(numbered, chunks), glb_files(path))
    return [_glb_part(mesh, materials, by_trimesh, path) for mesh in meshes]


def _check_glb(header: Mapping[str, Any], path: Path) -> None:
    """Refuse what trimesh would read as something else."""
    for name in header.get("extensionsRequired", []):
        if not name.startswith(_EXTENSIONS):
            raise TraceBenchError(f"{path} needs the extension {name}, which is not supported; export it without.")
    accessors = header.get("accessors", [])
    used: set[int] = set()
    for mesh in header.get("meshes", []):
        for primitive in mesh["primitives"]:
            attributes = primitive["attributes"]
            used |= {attributes[name] for name in ("POSITION", "TEXCOORD_0") if name in attributes}
    if any(accessors[i].get("normalized") for i in used) or any("sparse" in a for a in accessors):
        raise TraceBenchError(
            f"{path} has quantised or sparse coordinates, which are not supported; export it without compression."
        )


def _with_numbered_materials(header: Mapping[str, Any], materials: Sequence[GlbMaterial]) -> dict[str, Any]:
    """The header with nothing but a name, m<i>, and the texture of each material; m<n> is for parts without one."""
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
        return _part(mesh, np.full(3, GREY, np.float32))
    material = materials[number] if number < len(materials) else GlbMaterial()
    vertex = np.ones((1, 4)) if stored is None else _rgba(np.asarray(stored))
    picture = mesh.visual.material.baseColorTexture
    if material.texture is not None:
        problem = material.texture_problem()
        if picture is None or mesh.visual.uv is None:
            problem = "its base-colour texture, or its texture coordinates, cannot be read"
        if problem:
            raise TraceBenchError(f"{path} cannot be shown as it is meant: {problem}; export it without.")
    _check_opaque(material, vertex[:, 3], picture, path)
    # trimesh writes the colours of vertices as they are in images; the format says linear
    linear = (to_linear(vertex[:, :3]) if by_trimesh else vertex[:, :3]) * np.array(material.factor[:3])
    colors = to_srgb(linear)
    corners = colors[np.asarray(mesh.faces)] if stored is not None else colors
    return _part(mesh, corners, mesh.visual.uv, picture if material.texture is not None else None)


def _rgba(stored: np.ndarray) -> np.ndarray:
    """COLOR_0 as float64 [V, 4] in [0, 1]."""
    largest = float(np.iinfo(stored.dtype).max) if np.issubdtype(stored.dtype, np.integer) else 1.0
    rgba = np.clip(stored.astype(np.float64) / largest, 0.0, 1.0)
    return rgba if rgba.shape[1] == 4 else np.concatenate([rgba, np.ones((len(rgba), 1))], axis=1)


def _check_opaque(material: GlbMaterial, vertex_alpha: np.ndarray, picture: Any, path: Path) -> None:
    """Refuse a part that its alpha mode makes transparent somewhere."""
    if material.alpha_mode == "OPAQUE":
        return
    texture = 1.0
    if picture is not None and ("A" in picture.getbands() or "transparency" in picture.info):
        texture = np.asarray(picture.convert("RGBA"))[..., 3].min() / 255.0
    least = float(vertex_alpha.min()) * material.factor[3] * texture
    wanted = material.alpha_cutoff if material.alpha_mode == "MASK" else 1.0
    if least < wanted - 0.5 / 255.0:
        raise TraceBenchError(
            f"{path} has a material with alphaMode {material.alpha_mode} and transparent parts, which are not "
            "supported; make it OPAQUE, or render the asset elsewhere and use its images."
        )


# --- pictures -------------------------------------------------------------------------------------------


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise TraceBenchError(f"{path} is not a readable image ({_first_line(error)}).") from error


def _rgb(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
