"""Folders of numbered images."""

from __future__ import annotations

from pathlib import Path

from trace_bench.system.errors import TraceBenchError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def pictures_in(folder: Path) -> list[Path]:
    """The images of a folder, ordered by the numbers in their names; normal and depth maps are skipped."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES]
    colours = [path for path in found if not path.name.startswith(("normal", "depth", "."))]
    if not colours:
        raise TraceBenchError(f"{folder} contains no images ({', '.join(PICTURES)}).")
    return sorted(colours, key=_number)


def _number(path: Path) -> tuple[int, str]:
    digits = "".join(c if c.isdigit() else " " for c in path.stem).split()
    return int(digits[-1]) if digits else -1, path.name
