"""One style for all figures: thin axes, three greys, a colour-blind-safe palette, labels next to lines."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trace_bench.system.files import write_atomic

INK, GREY, HAIR, SHADE = "#1a1a1c", "#77777d", "#d9d9de", "#f1f1f4"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a4508b", "#b8860b", "#56a0d3", "#5b5b5f")  # after Okabe and Ito
_RC: dict[Any, Any] = {  # matplotlib's stubs accept only literal keys
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10.5, "axes.labelsize": 9,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GREY, "axes.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left", "axes.titlepad": 12.0,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.direction": "out", "ytick.direction": "out",
    "lines.linewidth": 1.5, "lines.markersize": 4.5, "legend.frameon": False, "figure.dpi": 100,
    "pdf.fonttype": 42, "savefig.facecolor": "white",
}  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """Context with this style; the global matplotlib settings stay unchanged."""
    with mpl.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, created without pyplot so that nothing stays open."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write PDF and PNG, each atomically; the same numbers give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    pdf, png = io.BytesIO(), io.BytesIO()
    with style():
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
        figure.savefig(png, format="png", dpi=200)
    for path, content in zip(paths, (pdf, png), strict=True):
        write_atomic(path, content.getvalue())
    return paths


def label_lines(
    axes: Axes, ends: Sequence[tuple[float, float]], texts: Sequence[str], colours: Sequence[str]
) -> None:
    """Label the right end (x, y) of each line; labels move up or down until they do not overlap."""
    texts = [textwrap.fill(textwrap.shorten(text, 60, placeholder=" …"), 26) for text in texts]
    low, high = axes.get_ylim()
    line = (high - low) / (
        axes.get_window_extent().height / axes.figure.dpi * 72 / 10.5
    )  # height of a text line in y
    heights = [line * (text.count("\n") + 1) * 1.15 for text in texts]
    places = spread([y for _, y in ends], heights)
    right = max((x for x, _ in ends), default=0.0)
    for (_, y), place, text, colour in zip(ends, places, texts, colours, strict=True):
        axes.annotate(
            text, (right, y), (10, _points(axes, place - y)), textcoords="offset points", va="center",
            fontsize=8.5, color=colour, annotation_clip=False,
        )  # fmt: skip


def _points(axes: Axes, dy: float) -> float:
    """A difference in y, in points."""
    low, high = axes.get_ylim()
    return dy / (high - low) * axes.get_window_extent().height / axes.figure.dpi * 72


def spread(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Positions closest to the wanted ones at which boxes of these heights do not overlap; order is kept.

    Boxes that would overlap form a block, placed at the mean of its boxes' wanted positions.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    blocks: list[list[int]] = []
    for i in order:
        blocks.append([i])
        while len(blocks) > 1 and _top(blocks[-2], places, heights) > _bottom(blocks[-1], places, heights):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    found = [0.0] * len(places)
    for block in blocks:
        y = _bottom(block, places, heights)
        for i in block:
            found[i] = y + heights[i] / 2
            y += heights[i]
    return found


def _bottom(block: Sequence[int], places: Sequence[float], heights: Sequence[float]) -> float:
    wanted, below = [], 0.0
    for i in block:
        wanted.append(places[i] - below - heights[i] / 2)
        below += heights[i]
    return sum(wanted) / len(wanted)


def _top(block: Sequence[int], places: Sequence[float], heights: Sequence[float]) -> float:
    return _bottom(block, places, heights) + sum(heights[i] for i in block)
