"""The materials of an .obj: which files it names, where they lie, and the colour of each material."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.named_files import find_named, printable

_STATEMENT = re.compile(rb"^[ \t]*(mtllib|usemtl)[ \t]+([^\r\n]*)", re.MULTILINE | re.IGNORECASE)
#: option of a texture map -> (most arguments, the arguments that change nothing; None if all change nothing)
_OPTIONS: dict[str, tuple[int, str | None]] = {
    "-blendu": (1, None),
    "-blendv": (1, None),
    "-boost": (1, None),
    "-texres": (1, None),
    "-bm": (1, None),
    "-type": (1, None),
    "-imfchan": (1, None),
    "-cc": (1, "off"),
    "-clamp": (1, "off"),
    "-mm": (2, "0 1"),
    "-o": (3, "0"),
    "-s": (3, "1"),
    "-t": (3, "0"),
}


@dataclass(frozen=True)
class ObjMaterial:
    """A material: its diffuse colour [3] in [0, 1], and the diffuse texture that is shown instead."""

    name: str
    diffuse: tuple[float, float, float] | None = None
    texture: Path | None = None
    #: why this material cannot be shown as it is meant; "" if it can
    refused: str = ""


@dataclass(frozen=True)
class ObjMaterials:
    """What an .obj says about its materials."""

    libraries: tuple[Path, ...]
    materials: dict[str, ObjMaterial]  # by name, of all libraries
    used: tuple[str, ...]  # names after `usemtl`, in order, without repetition

    def files(self) -> list[Path]:
        """The material files and their textures."""
        textures = [material.texture for material in self.materials.values() if material.texture is not None]
        return list(dict.fromkeys([*self.libraries, *textures]))


def obj_materials(path: Path) -> ObjMaterials:
    """The materials of an .obj; refuses a used material whose files are missing or that is not supported."""
    statements = list(obj_statements(path.read_bytes()))
    used = tuple(dict.fromkeys(name for keyword, name in statements if keyword == "usemtl"))
    libraries: list[Path] = []
    for rest in dict.fromkeys(name for keyword, name in statements if keyword == "mtllib"):
        whole = find_named(rest, [path.parent])
        for name in [rest] if whole else rest.split():
            found = whole or find_named(name, [path.parent])
            if found is not None:
                libraries.append(found)
            elif used:
                raise TraceBenchError(
                    f"{path} names the material file {printable(name)}, which does not exist; put it beside "
                    "the .obj, or remove the mtllib line."
                )
    materials = {m.name: m for library in libraries for m in _read_library(library, path.parent)}
    for name in used:
        if name in materials and materials[name].refused:
            raise TraceBenchError(f"{path}: the material {printable(name)} {materials[name].refused}.")
    return ObjMaterials(tuple(dict.fromkeys(libraries)), materials, used)


def obj_statements(content: bytes) -> Iterator[tuple[str, str]]:
    """(`mtllib` or `usemtl`, what follows) of each such line of an .obj."""
    for found in _STATEMENT.finditer(content):
        keyword, rest = found[1].decode().lower(), os.fsdecode(found[2]).strip()
        yield keyword, material_name(rest) if keyword == "usemtl" else rest


def with_materials_numbered(content: bytes, names: Sequence[str]) -> bytes:
    """An .obj whose only material file is called `materials`, and whose material `names[i]` is called m<i>.

    Materials that are not among `names` are removed.
    """

    def rename(found: re.Match[bytes]) -> bytes:
        name = material_name(os.fsdecode(found[2]))
        if found[1].lower() == b"mtllib":
            return b""
        return b"usemtl m%d" % names.index(name) if name in names else b"usemtl none"

    return b"mtllib materials\n" + _STATEMENT.sub(rename, content)


def material_name(text: str) -> str:
    """A material's name, independent of the kind of blanks in it."""
    return " ".join(text.split())


def _read_library(library: Path, obj_folder: Path) -> list[ObjMaterial]:
    statements: list[tuple[str, dict[str, str]]] = []
    text = os.fsdecode(library.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    for line in text.splitlines():
        keyword, _, rest = line.strip().replace("\t", " ").partition(" ")
        if keyword.lower() == "newmtl":
            statements.append((material_name(rest), {}))
        elif statements:
            statements[-1][1][keyword.lower()] = rest.strip()
    return [_material(name, values, library, obj_folder) for name, values in statements]


def _material(name: str, values: dict[str, str], library: Path, obj_folder: Path) -> ObjMaterial:
    diffuse, transparency = _color(values.get("kd")), _transparency(values)
    if transparency:
        return ObjMaterial(name, diffuse, None, f"{transparency}; transparent materials are not supported")
    if not values.get("map_kd"):
        return ObjMaterial(name, diffuse)
    file, option = _without_options(values["map_kd"])
    texture = find_named(file, [library.parent, obj_folder])
    refused = ""
    if texture is None:
        refused = f"needs the texture {printable(file)}, which does not exist; put it beside {library.name}"
    elif option:
        refused = f"has `{option}` in map_Kd of {library.name}, which is not supported; export it without"
    return ObjMaterial(name, diffuse, texture, refused)


def _transparency(values: dict[str, str]) -> str:
    """What makes a material transparent; "" if it is opaque."""
    if "map_d" in values:
        return "has a map_d"
    dissolve = _numbers(values.get("d", "").removeprefix("-halo"))
    if dissolve and dissolve[0] < 1.0:
        return f"has d {dissolve[0]:g}"
    through = _numbers(values.get("tr", "")) if not dissolve else []
    if through and 0.0 < through[0] < 1.0:  # some programs write 1 and mean opaque
        return f"has Tr {through[0]:g}"
    return ""


def _color(text: str | None) -> tuple[float, float, float] | None:
    numbers = _numbers(text or "")
    if len(numbers) not in (1, 3):
        return None
    r, g, b = (min(max(value, 0.0), 1.0) for value in (numbers * 3)[:3])
    return r, g, b


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return []


def _without_options(text: str) -> tuple[str, str]:
    """(file name, first option that changes the picture or "") of what follows `map_Kd`."""
    changing = ""
    while text.startswith("-") and text.split(maxsplit=1)[0].lower() in _OPTIONS:
        option, _, text = text.partition(" ")
        most, harmless = _OPTIONS[option.lower()]
        text = text.strip()
        given: list[str] = []
        while text and len(given) < most:
            word, _, rest = text.partition(" ")
            if given and not _numbers(word):
                break
            given.append(word)
            text = rest.strip()
        if harmless is not None and not _same(given, harmless.split()):
            changing = changing or " ".join([option, *given])
    return text, changing


def _same(given: Sequence[str], harmless: Sequence[str]) -> bool:
    """Whether the arguments are these; a single harmless value stands for each of them."""
    wanted = list(harmless) if len(harmless) == len(given) else [harmless[0]] * len(given)
    return [_numbers(word) or word.lower() for word in given] == [_numbers(word) or word for word in wanted]
