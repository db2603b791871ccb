"""Grid layout shared by all figures of renders."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evaluation.figures.base import Data, NothingToDraw
from evaluation.figures.contact_sheet import nearest_view
from evaluation.figures.style import GREY, INK
from evaluation.metrics.renders import open_alpha, open_rgb
from trace_bench.run_folder.manifest import read_manifest
from trace_bench.run_folder.reading import Run, natural
from trace_bench.system.errors import TraceBenchError

Image = NDArray[np.uint8]  # [H, W, 3], or [H, W] for an alpha mask
KINDS = ("rgb", "normal", "alpha")

TILE, GAP, LABEL, HEAD = 1.15, 0.09, 1.55, 0.34  # inches


@dataclass(frozen=True)
class Block:
    """The pictures of one cell, side by side; an empty cell shows the text `instead`."""

    images: list[Image]
    instead: str = ""
    scale: str = ""  # written on the picture


def picture_grid(rows: Sequence[str], columns: Sequence[str], blocks: Sequence[Sequence[Block]]) -> Figure:
    """Draw blocks [row][column] with column headings and row labels.

    All pictures have the same size; the second line of a heading is smaller.
    """
    widths = [max(1, *(len(row[j].images) for row in blocks)) for j in range(len(columns))]
    lefts = [LABEL + GAP + sum(w * TILE + 2 * GAP for w in widths[:j]) for j in range(len(columns))]
    width = lefts[-1] + widths[-1] * TILE + GAP
    height = HEAD + len(rows) * (TILE + GAP)
    figure = Figure(figsize=(width, height))
    sizes = _fitting(columns, widths)
    for left, n, text in zip(lefts, widths, columns, strict=True):
        x = (left + n * TILE / 2) / width
        name, *details = text.split("\n")
        y = 1 - (0.3 if details else 0.5) * HEAD / height
        figure.text(x, y, name, ha="center", va="center", fontsize=sizes[0], fontweight="bold")
        for detail in details:
            figure.text(
                x, 1 - 0.78 * HEAD / height, detail, ha="center", va="center",
                fontsize=sizes[1], color=GREY,
            )  # fmt: skip
    for i, (label, row) in enumerate(zip(rows, blocks, strict=True)):
        bottom = height - HEAD - (i + 1) * TILE - i * GAP
        first, *more = label.split("\n")
        wrapped = "\n".join([textwrap.fill(textwrap.shorten(first, 90, placeholder=" …"), 20), *more])
        figure.text(0.1 / width, (bottom + TILE / 2) / height, wrapped, va="center", fontsize=8, color=INK)
        for left, block, n in zip(lefts, row, widths, strict=True):
            _block(figure, block, left, bottom, n, (width, height))
    return figure


def _fitting(columns: Sequence[str], widths: Sequence[int]) -> tuple[float, float]:
    """Font sizes of names and details at which none is wider than its column of so many pictures: a letter is
    at most 0.7 of the size wide."""
    sizes = [9.5, 6.5]
    for text, tiles in zip(columns, widths, strict=True):
        for i, line in enumerate(text.split("\n")[:2]):
            sizes[i] = min(sizes[i], 72.0 * tiles * TILE / (0.7 * max(len(line), 1)))
    return sizes[0], sizes[1]


def _block(
    figure: Figure, block: Block, left: float, bottom: float, tiles: int, size: tuple[float, float]
) -> None:
    width, height = size
    for k, image in enumerate(block.images):
        place = ((left + k * TILE) / width, bottom / height, TILE / width, TILE / height)
        axes = figure.add_axes(place)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
        if block.scale:
            axes.text(
                0.03, 0.04, block.scale, transform=axes.transAxes, fontsize=6.5, color=INK,
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.2},
            )  # fmt: skip
    if not block.images:
        centre = ((left + tiles * TILE / 2) / width, (bottom + TILE / 2) / height)
        figure.text(*centre, block.instead, ha="center", va="center", fontsize=8, color=GREY)


def open_run(data: Data, row: pd.Series) -> Run:
    """Open the run folder of a row of the frame."""
    folder = data.root / str(row["folder"])
    manifest = read_manifest(folder)
    if manifest is None:
        raise TraceBenchError(f"{folder} was removed while the figures were drawn: draw them again.")
    return Run(folder, manifest)


def views_of(data: Data, row: pd.Series, azimuths: Sequence[float], kind: str = "rgb") -> list[Image]:
    """The renders nearest to the azimuths (degrees, 0 is the front), or the one picture of a canvas.

    kind: rgb; normal, in world space as (n + 1) / 2; alpha, the opacity, black is empty. No pictures if the
        asset has none of that kind.
    """
    run = open_run(data, row)
    views = [0] if len(run.cameras) == 1 else [nearest_view(run, azimuth) for azimuth in azimuths]
    if kind == "alpha":
        if not run.geometry.is_file():
            return []
        alpha = open_alpha(run)
        return [alpha[view] for view in views]
    return [np.asarray(open_rgb(run.normal(view) if kind == "normal" else run.rgb(view))) for view in views]


def pick_runs(
    data: Data, figure: str, methods: Sequence[str] | None, representation: str | None,
    prompt_set: str | None = None, prior: str | None = None, split: Sequence[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Select a figure's runs from one prompt set: the named one, else the one with the most runs.

    With `split`, the one in which a method has most of these settings, whatever the number of runs.

    Runs of several priors are mixed unless one is named (Dreamer XL has its own). External assets are
    selected in any representation.
    """
    runs = data.runs
    if representation is not None and not runs.empty:
        runs = runs[(runs["representation"] == representation) | runs["external"].astype(bool)]
    for column, wanted in (("prompt_set", prompt_set), ("prior", prior)):
        if wanted is not None and not runs.empty:
            runs = runs[runs[column] == wanted]
    if methods is not None and not runs.empty:
        runs = runs[runs["method"].isin(list(methods))]
    if runs.empty:
        raise NothingToDraw(
            f"There are no runs for it: `python -m trace_bench -m experiment={figure}` makes them."
        )
    kinds = {str(name): (_most_settings(part, split), len(part)) for name, part in runs.groupby("prompt_set")}
    return runs[runs["prompt_set"] == max(kinds, key=lambda name: kinds[name])]


def _most_settings(runs: pd.DataFrame, split: Sequence[str]) -> int:
    """The number of combinations of these settings in the method that has most of them."""
    if not split:
        return 0
    return int(runs.groupby(["method", *split], dropna=False).first().groupby("method").size().max())


def chosen_prompts(
    runs: pd.DataFrame, prompts: Sequence[str | int] | None, most: int
) -> list[tuple[str, str]]:
    """(prompt_id, prompt) of the wanted ids, else of the first available prompts."""
    pairs = runs[["prompt_id", "prompt"]].drop_duplicates()
    found = sorted(
        ((str(i), str(p)) for i, p in pairs.itertuples(index=False)), key=lambda pair: natural(pair[0])
    )
    if prompts is not None:
        wanted = {str(i) for i in prompts}
        found = [pair for pair in found if pair[0] in wanted] or found
    return found[:most]
