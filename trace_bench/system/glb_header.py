"""The JSON header of a .glb: its materials' base colours, and the files that it names."""

from __future__ import annotations

import json
import struct
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.named_files import find_named, printable

_START = 20  # bytes before the JSON text
_JSON = 0x4E4F534A  # the type of its chunk
_SPECULAR = "KHR_materials_pbrSpecularGlossiness"
_TRANSFORM = "KHR_texture_transform"


@dataclass(frozen=True)
class GlbMaterial:
    """The base colour of a material: factor [4] (linear RGB and alpha), times its texture if it has one."""

    factor: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    texture: Mapping[str, Any] | None = None  # glTF's textureInfo
    alpha_mode: str = "OPAQUE"
    alpha_cutoff: float = 0.5

    def texture_problem(self) -> str:
        """Why the texture cannot be shown as it is meant; "" if it can."""
        info = self.texture or {}
        transform = info.get("extensions", {}).get(_TRANSFORM, {})
        identity = {"offset": [0, 0], "scale": [1, 1], "rotation": 0, "texCoord": 0}
        if any(value != identity.get(key, value) for key, value in transform.items()):
            return f"its texture is moved or scaled ({_TRANSFORM})"
        if info.get("texCoord", 0) != 0:
            return "its texture uses the second set of texture coordinates (texCoord)"
        return ""


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """(the JSON header, where the chunks after it start) of a .glb.

    Raises: ValueError if the file is no .glb of version 2.
    """
    with path.open("rb") as stream:
        try:
            magic, version, _, length, kind = struct.unpack("<4sIIII", stream.read(_START))
        except struct.error as error:
            raise ValueError("the file is too short") from error
        if magic != b"glTF" or version != 2 or kind != _JSON:
            raise ValueError("it does not start like a glTF 2.0 file")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, _START + length


def with_header(header: Mapping[str, Any], chunks: bytes) -> bytes:
    """A .glb with this header."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    length = _START + len(text) + len(chunks)
    return struct.pack("<4sIIII", b"glTF", 2, length, len(text), _JSON) + text + chunks


def material_of(material: Mapping[str, Any]) -> GlbMaterial:
    """The base colour of a glTF material; of specular-glossiness, its diffuse colour."""
    specular = material.get("extensions", {}).get(_SPECULAR)
    metallic = material.get("pbrMetallicRoughness", {})
    values, kind = (specular, "diffuse") if specular is not None else (metallic, "baseColor")
    factor = [*values.get(f"{kind}Factor", ()), 1.0, 1.0, 1.0, 1.0][:4]
    r, g, b, a = map(float, factor)
    return GlbMaterial(
        (r, g, b, a),
        values.get(f"{kind}Texture"),
        str(material.get("alphaMode", "OPAQUE")),
        float(material.get("alphaCutoff", 0.5)),
    )


def image_index(header: Mapping[str, Any], material: GlbMaterial) -> int | None:
    """The image of a material's texture; None if it has none."""
    if material.texture is None:
        return None
    texture = header["textures"][material.texture["index"]]
    webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
    index = webp.get("source", texture.get("source"))
    return None if index is None else int(index)


def glb_files(path: Path) -> dict[str, Path]:
    """The buffers and base-colour images that a .glb names: URI -> file; refuses one that does not exist."""
    try:
        header, _ = read_header(path)
        images = {image_index(header, material_of(m)) for m in header.get("materials", [])}
        shown = [header["images"][i] for i in sorted(i for i in images if i is not None)]
        uris = [item["uri"] for item in [*header.get("buffers", []), *shown] if "uri" in item]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return {}  # the loader says what is wrong
    found: dict[str, Path] = {}
    for uri in dict.fromkeys(uri for uri in uris if not uri.startswith("data:")):
        file = find_named(uri, [path.parent]) or find_named(urllib.parse.unquote(uri), [path.parent])
        if file is None:
            raise TraceBenchError(f"{path} needs {printable(uri)}, which does not exist; put it beside it.")
        found[uri] = file
    return found
