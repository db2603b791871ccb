"""Folders of numbered images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trace_bench.system.errors import TraceBenchError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_NUMBER = re.compile(r"(\d+)")


def pictures_in(folder: Path) -> list[Path]:
    """`images_in` a folder as views in one order: that of the number that varies in their names.

    A name that fits no order, and names that allow two, are refused.
    """
    return [path for _, path in _ordered(folder)]


def images_in(folder: Path) -> list[Path]:
    """The images of a folder by the numbers in their names, whatever they mean; no normal and depth maps."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES]
    colours = [path for path in found if not path.name.startswith(("normal", "depth", "."))]
    if not colours:
        raise TraceBenchError(f"{folder} contains no images ({', '.join(PICTURES)}).")
    return sorted(colours, key=lambda path: ([int(n) for n in _NUMBER.findall(path.stem)], path.name))


def normals_in(folder: Path) -> list[Path]:
    """normal_<i>.png of each image <i> of `pictures_in`, in its order; empty if the folder has none."""
    found = {
        int(path.stem.partition("_")[2]): path for path in folder.glob("normal_*.png") if _is_normal(path)
    }
    numbers = [number for number, _ in _ordered(folder)]
    missing = [number for number in numbers if number not in found]
    if not found:
        return []
    if missing:
        raise TraceBenchError(
            f"{folder} has normal maps, but no normal_{missing[0]}.png; add one per image, or remove all."
        )
    return [found[number] for number in numbers]


def _is_normal(path: Path) -> bool:
    return path.stem.partition("_")[2].isdecimal()


def _ordered(folder: Path) -> list[tuple[int, Path]]:
    """(number, image) of a folder, in ascending order."""
    colours = images_in(folder)
    parts = [_NUMBER.split(path.stem) for path in colours]  # text, number, text, number, ..., text
    for path, part in zip(colours, parts, strict=True):
        if part[::2] != parts[0][::2]:
            raise TraceBenchError(
                f"{folder} holds {colours[0].name} and {path.name}, which cannot be put in one order; use "
                "names that differ only in a number."
            )
    rows = [tuple(map(int, part[1::2])) for part in parts]
    column = _deciding_column(rows, folder, [path.name for path in colours])
    return sorted((row[column] if row else 0, path) for row, path in zip(rows, colours, strict=True))


def _deciding_column(rows: Sequence[tuple[int, ...]], folder: Path, names: Sequence[str]) -> int:
    """The index of the number that orders the rows; in this order, no other number may fall."""
    if len(rows) == 1:
        return len(rows[0]) - 1
    columns = list(zip(*rows, strict=True))
    unique = [j for j, values in enumerate(columns) if len(set(values)) == len(values)]
    ordered = sorted(rows, key=lambda row: row[unique[0]]) if unique else []
    rising = all(list(values) == sorted(values) for values in zip(*ordered, strict=True))
    if not unique or not rising:
        raise TraceBenchError(
            f"The order of the images in {folder} is ambiguous ({names[0]}, {names[1]}, ...); use names that "
            "differ in one number, each number once."
        )
    return unique[0]
