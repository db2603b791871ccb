"""Drawing of the contact sheet: pictures on white, one typeface, three greys."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

INK, GREY, HAIR = (25, 25, 28), (120, 120, 126), (226, 226, 230)
MARGIN, GAP, FIGURES, HEADER, TITLE = 28, 28, 32, 58, 46  # px


@dataclass(frozen=True)
class Picture:
    """The views of one asset and the text below them."""

    views: list[Image.Image]
    below: str


@dataclass(frozen=True)
class Column:
    heading: str
    details: str
    cells: list[Picture]

    def tiles(self, views: int) -> int:
        """Width in pictures: the number of views, or 1 if the column holds only canvases."""
        shown = {len(cell.views) for cell in self.cells} - {0}
        return 1 if shown == {1} else views


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which ships with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def draw_sheet(
    title: str,
    prompts: Sequence[str],
    columns: Sequence[Column],
    views: Sequence[str],
    tile_px: int,
    note: str = "",
) -> Image.Image:
    """Rows are prompts, columns assets; each cell shows its views side by side. The note is below them."""
    label_width = max(150, tile_px)
    row_height = tile_px + FIGURES
    widths = [max(tile_px * column.tiles(len(views)), _text_width(column)) for column in columns]
    lefts = [MARGIN + label_width + GAP + sum(widths[:i]) + i * GAP for i in range(len(columns))]
    top = MARGIN + TITLE + HEADER
    title_width = MARGIN + math.ceil(font(20, bold=True).getlength(title))
    width = max(title_width, lefts[-1] + widths[-1] if lefts else label_width) + MARGIN
    bottom = top + row_height * len(prompts)
    lines = textwrap.wrap(note, max(20, (width - 2 * MARGIN) // 8))
    sheet = Image.new("RGB", (width, bottom + MARGIN + 18 * len(lines)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.multiline_text((MARGIN, bottom + 8), "\n".join(lines), GREY, font(12), spacing=4)
    draw.text((MARGIN, MARGIN), title, INK, font(20, bold=True), anchor="lt")
    for left, column in zip(lefts, columns, strict=True):
        shown = views if column.tiles(len(views)) == len(views) else []
        _heading(draw, left, MARGIN + TITLE, column, shown, tile_px)
    for i, prompt in enumerate(prompts):
        y = top + i * row_height
        draw.line([(MARGIN, y), (width - MARGIN, y)], HAIR)
        label = textwrap.fill(prompt, max(10, label_width // 9))
        draw.multiline_text((MARGIN, y + row_height // 2), label, INK, font(15), anchor="lm", spacing=5)
        for left, cell_width, column in zip(lefts, widths, columns, strict=True):
            _cell(sheet, draw, left, y, column.cells[i], tile_px, cell_width)
    return sheet


def _text_width(column: Column) -> int:
    """Of the heading, or of the widest line below a cell."""
    details = 10 + font(12).getlength(column.details) if column.details else 0
    heading = font(17, bold=True).getlength(column.heading) + details
    return math.ceil(max([heading, *(font(12).getlength(cell.below) for cell in column.cells)]))


def _heading(
    draw: ImageDraw.ImageDraw, left: int, y: int, column: Column, views: Sequence[str], tile_px: int
) -> None:
    draw.text((left, y), column.heading, INK, font(17, bold=True), anchor="lt")
    if column.details:
        start = left + draw.textlength(column.heading, font(17, bold=True)) + 10
        draw.text((start, y + 14), column.details, GREY, font(12), anchor="ls")
    for k, view in enumerate(views):
        draw.text((left + (k + 0.5) * tile_px, y + HEADER - 18), view, GREY, font(12), anchor="mm")


def _cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, left: int, y: int, cell: Picture, tile_px: int, width: int
) -> None:
    for k, view in enumerate(cell.views):
        tile = (
            view
            if view.size == (tile_px, tile_px)
            else view.resize((tile_px, tile_px), Image.Resampling.LANCZOS)
        )
        sheet.paste(tile, (left + k * tile_px, y + 2))
    height = tile_px + 12 if cell.views else (tile_px + FIGURES) // 2
    draw.text((left + width // 2, y + height), cell.below, GREY, font(12), anchor="mm")
