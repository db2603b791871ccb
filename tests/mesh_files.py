"""Small mesh files for tests: a cube, its textures and materials."""

from __future__ import annotations

import json
import struct

import numpy as np
from PIL import Image

CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], np.float32)
#: two triangles of each of the six sides
TRIANGLES = np.array(
    [[1, 3, 0], [4, 1, 0], [0, 3, 2], [2, 4, 0], [1, 7, 3], [5, 1, 4],
     [5, 7, 1], [3, 7, 2], [6, 4, 2], [2, 7, 6], [6, 5, 4], [7, 5, 6]]
)  # fmt: skip
RED = (220, 20, 20)


def texture(path, color=RED, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (8, 8), color).save(path)
    return path


def obj(path, mtllib="model.mtl", usemtl="mat", colors=None, uv=True):
    """A cube as .obj; `colors`: r g b of every vertex."""
    lines = [f"mtllib {mtllib}"] if mtllib else []
    lines += [f"usemtl {usemtl}"] if usemtl else []
    lines += [" ".join(["v", *map(str, corner), *map(str, colors or ())]) for corner in CORNERS]
    lines += ["vt 0.1 0.1", "vt 0.9 0.1", "vt 0.9 0.9"] if uv else []
    ends = ("/1", "/2", "/3") if uv else ("", "", "")
    lines += ["f " + " ".join(f"{i + 1}{end}" for i, end in zip(row, ends, strict=True)) for row in TRIANGLES]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def textured_obj(folder, material="newmtl mat\nKd 1 1 1\nmap_Kd tex.png\n", image="tex.png", **options):
    """A cube with a red texture."""
    path = obj(folder / "model.obj", **options)
    (folder / options.get("mtllib", "model.mtl")).write_text(material)
    if image:
        texture(folder / image)
    return path


def glb(path, material=None, colors=None, uv=False, image=None, generator="", **header):
    """A cube as .glb; colors: [8, 3 or 4] of any type; image: bytes of a picture, or its URI."""
    blocks, accessors = [], []

    def add(array, kind, **more):
        codes = {"f4": 5126, "u4": 5125, "u2": 5123, "u1": 5121}
        accessors.append({
            "bufferView": len(blocks), "componentType": codes[array.dtype.str[1:]], "count": len(array),
            "type": kind, **more,
        })  # fmt: skip
        blocks.append(array.tobytes())
        return len(accessors) - 1

    attributes = {"POSITION": add(CORNERS, "VEC3", min=[-0.5] * 3, max=[0.5] * 3)}
    if colors is not None:
        normalized = {"normalized": True} if colors.dtype.kind == "u" else {}
        attributes["COLOR_0"] = add(np.ascontiguousarray(colors), f"VEC{colors.shape[1]}", **normalized)
    if uv:
        attributes["TEXCOORD_0"] = add(np.full((8, 2), 0.5, np.float32), "VEC2")
    primitive = {"attributes": attributes, "indices": add(TRIANGLES.reshape(-1).astype(np.uint32), "SCALAR")}
    tree = {
        "asset": {"version": "2.0", "generator": generator}, "scene": 0, "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}], "meshes": [{"primitives": [primitive]}],
    }  # fmt: skip
    if material is not None:
        primitive["material"] = 0
        tree["materials"] = [material]
    if isinstance(image, bytes):
        blocks.append(image)
        tree |= {
            "images": [{"bufferView": len(blocks) - 1, "mimeType": "image/png"}],
            "textures": [{"source": 0}],
        }
    elif image is not None:
        tree |= {"images": [{"uri": image}], "textures": [{"source": 0}]}
    blocks = [block + b"\0" * (-len(block) % 4) for block in blocks]
    starts = np.cumsum([0, *map(len, blocks)]).tolist()
    tree["buffers"] = [{"byteLength": starts[-1]}]
    tree["bufferViews"] = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(block)}
        for start, block in zip(starts, blocks, strict=False)
    ]
    tree |= {"accessors": accessors, **header}
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    data = b"".join(blocks)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(data))
    chunks = (
        struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + data
    )
    path.write_bytes(head + chunks)
    return path
