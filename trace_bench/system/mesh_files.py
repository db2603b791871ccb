"""The other files that a mesh consists of, found as its loader finds them."""

from __future__ import annotations

import re
from pathlib import Path

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.glb_header import glb_files
from trace_bench.system.named_files import find_named, printable
from trace_bench.system.obj_materials import obj_materials

_HEADER_BYTES = 1 << 16
_TEXTURE = re.compile(r"^comment\s+texturefile\s+(.+)$", re.MULTILINE | re.IGNORECASE)
_COORDINATES = re.compile(r"^property .*\b(texcoord|texture_u|u|s)\s*$", re.MULTILINE)


def mesh_files(path: Path) -> list[Path]:
    """The materials, textures and buffers that a mesh file names; refuses those that do not exist."""
    suffix = path.suffix.lower()
    if suffix == ".obj":
        return obj_materials(path).files()
    if suffix == ".glb":
        return list(glb_files(path).values())
    if suffix == ".ply":
        texture = ply_texture(path)
        return [] if texture is None else [texture]
    return []


def ply_header(path: Path) -> str:
    """The header of a .ply, with a newline at each line's end."""
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES).partition(b"end_header")[0]
    return header.decode("utf-8", errors="surrogateescape").replace("\r\n", "\n").replace("\r", "\n")


def ply_texture(path: Path) -> Path | None:
    """The texture of a .ply with texture coordinates; None if it has none."""
    header = ply_header(path)
    names = _TEXTURE.findall(header)
    if not names or not _COORDINATES.search(header):
        return None
    if len(names) > 1:
        raise TraceBenchError(f"{path} has {len(names)} textures, but only one is supported; merge them.")
    found = find_named(names[0], [path.parent])
    if found is None:
        raise TraceBenchError(f"{path} needs {printable(names[0])}, which does not exist; put it beside it.")
    return found
