"""The picture of a question, in the published layout: the left asset's square grid next to the right one's.

Grids are row-major; colours are above normals if both are shown. The v views out of N are k * (N // v): for
N = 120, 0, 30, 60, 90 (v = 4) and 0, 13, ..., 104 (v = 9). Views are composited on white and resized to
`tile_px` x `tile_px`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from trace_bench.system.errors import UNREADABLE, TraceBenchError

LAYOUT = "gpteval3d 1"  # part of the judge's identity
_PNG_LEVEL = 3


def view_ids(there: int, wanted: int) -> list[int]:
    """The view indices of a question."""
    return [k * (there // wanted) for k in range(wanted)]


def size(views: int, rgb: bool, normal: bool, tile_px: int) -> tuple[int, int]:
    """(width, height) of the picture in pixels."""
    side = math.isqrt(views) * tile_px
    return 2 * side, (int(rgb) + int(normal)) * side


def draw(left: Sequence[Path], right: Sequence[Path], views: int, tile_px: int) -> Image.Image:
    """Draw the picture from each asset's files: `views` of one kind, then any of the other kind."""
    columns = math.isqrt(views)
    side, rows = columns * tile_px, math.ceil(len(left) / columns)
    picture = Image.new("RGB", (2 * side, rows * tile_px), "white")
    for offset, paths in ((0, left), (side, right)):
        for k, path in enumerate(paths):
            picture.paste(_tile(path, tile_px), (offset + k % columns * tile_px, k // columns * tile_px))
    return picture


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=_PNG_LEVEL)
    return stream.getvalue()


def _tile(path: Path, tile_px: int) -> Image.Image:
    """One view, RGB on white, resized to a tile."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGBA") if opened.has_transparency_data else opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError, *UNREADABLE) as error:
        raise TraceBenchError(f"{path} is not a readable picture ({error}).") from error
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    if image.size != (tile_px, tile_px):
        image = image.resize((tile_px, tile_px), Image.Resampling.BICUBIC)
    return image
