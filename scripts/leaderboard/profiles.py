"""Where methods differ: which wrong asset each method's assets resemble, and their best, median and worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from evaluation.figures.contact_sheet import asset_pictures, run_of, true_pictures
from evaluation.figures.drawing import Column, Picture, draw_sheet
from evaluation.metrics.base import Metric
from evaluation.results.controls import TRUTH
from evaluation.results.names import display_names
from scripts.leaderboard.ranking import FIRST, best_first
from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import MAIN, STRATA
from trace_bench.system.text import one_line

#: The numbers by which assets are compared with wrong ones: shape, colour, pieces outside of the shape (its
#: logarithm), and faces. Not fine detail: every method's assets are blurred and no wrong asset is, so that
#: distance would be all there is. Not normals and coverage of the surface: those of 3D Gaussians are rough
#: with every method.
COMPARED = ("soft_iou", "colour_error", "chamfer", "janus", "no_front")
_RATIO = "chamfer"
SHOWN = {"best": -1, "median": None, "worst": 0}  # place among a method's assets, from the worst up
TILE_PX = 112


@dataclass(frozen=True)
class Nearest:
    """The wrong asset that is most like a method's assets."""

    control: str
    distance: float
    is_near: bool  # nearer to it than any other control is


def nearest_controls(board: Board) -> dict[str, list[tuple[str, float]]]:
    """For each method the wrong assets by distance, nearest first.

    Compared are the means of `COMPARED` (of a ratio, its logarithm), each divided by its standard deviation
    over the wrong assets; the distance is the root of the mean square of the differences.
    """
    frame, controls = board.sections[MAIN], board.sections["controls"]
    wrong = controls[controls["right"] != True]  # noqa: E712  a column of pandas
    theirs = _means(wrong, "control")
    found = _distances(_means(frame, "method"), theirs, theirs.std())
    return {
        str(method): [(str(name), float(value)) for name, value in row.sort_values(kind="stable").items()]
        for method, row in found.iterrows()
    }


def most_like(board: Board) -> dict[str, Nearest]:
    """For each method the nearest wrong asset, and whether it is near at all."""
    controls = board.sections["controls"]
    every = _means(controls[(controls["right"] != True) | (controls["control"] == TRUTH)], "control")  # noqa: E712
    between = _distances(every, every, every.drop(index=TRUTH, errors="ignore").std())
    others = between.mask(np.eye(len(between), dtype=bool))
    return {
        method: Nearest(found[0][0], found[0][1], found[0][1] < float(others.loc[found[0][0]].min()))
        for method, found in nearest_controls(board).items()
    }


def _distances(ours: pd.DataFrame, theirs: pd.DataFrame, scale: pd.Series) -> pd.DataFrame:
    used = scale[scale > 0].index
    off = (ours[used].to_numpy()[:, None] - theirs[used].to_numpy()[None]) / scale[used].to_numpy()
    return pd.DataFrame(np.sqrt(np.nanmean(off**2, axis=2)), index=ours.index, columns=theirs.index)


def _means(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """An asset without a front does not have two, so it has a Janus number here, and all have equal terms."""
    janus = frame["janus"].where(frame["janus"].notna() | (frame["no_front"] != 1), 0.0)
    means = frame.assign(janus=janus).groupby(by)[list(COMPARED)].mean()
    return means.assign(**{_RATIO: np.log(means[_RATIO])})


def profiles(board: Board, _metrics: Mapping[str, Metric]) -> str:
    """Each method's numbers of shape, colour, texture and faces, and the wrong asset that is most like it."""
    frame, nearest = board.sections[MAIN], most_like(board)
    names = display_names(frame)["method"]
    means = frame.groupby("method")[[*COMPARED, "high_frequency"]].mean()
    titles = _titles(board)
    lines = [
        "| Method | IoU | ΔE | HF | Chamfer | Janus | No front | most like |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for method in best_first(board):
        row, found = means.loc[method], nearest[method]
        like = f"{titles[found.control]} ({found.distance:.1f})"
        cells = [
            f"{row['soft_iou']:.2f}", f"{row['colour_error']:.1f}", f"{row['high_frequency']:.2f}",
            f"{row['chamfer']:.3f}", _share(row["janus"]), _share(row["no_front"]),
            like if found.is_near else f"none; nearest {like}",
        ]  # fmt: skip
        lines.append(f"| {names.get(method, method)} | {' | '.join(cells)} |")
    for method in best_first(board):
        title = names.get(method, method)
        words = (
            f"{title}. Rows: kinds of object. Columns: best, median and worst asset, each beside the truth."
        )
        lines += ["", f"**{title}**", "", f"![{words}]({picture_of(method).relative_to('docs').as_posix()})"]
    return "\n".join(lines)


def picture_of(method: str) -> Path:
    """The file of a method's picture."""
    return Path("docs") / "images" / f"leaderboard_{method}.png"


def _share(value: float) -> str:
    return "—" if np.isnan(value) else f"{value:.2f}"


def _titles(board: Board) -> dict[str, str]:
    """What a control is called in tables, by its name."""
    rows = board.sections["controls"].drop_duplicates("control").set_index("control")["display_name"]
    return {str(name): str(title) for name, title in rows.items()}


def chosen_rows(rows: pd.DataFrame) -> list[pd.Series]:
    """Of some assets, those of the places in `SHOWN`, by Match."""
    ranked = rows.sort_values([FIRST, "prompt_id", "seed"], kind="stable")
    return [ranked.iloc[len(ranked) // 2 if place is None else place] for place in SHOWN.values()]


def picture(frame: pd.DataFrame, root: Path, azimuth_deg: float) -> Image.Image:
    """A row for each kind of object: a method's best, median and worst asset, each beside the truth.

    Args:
        frame: the rows of one method's runs, with their folders below `root`.
        azimuth_deg: from where they are seen.
    """
    numbers = pd.to_numeric(frame["prompt_id"])
    kinds = {kind: frame[numbers.isin(list(ids))] for kind, ids in STRATA.items()}
    kinds = {kind: rows for kind, rows in kinds.items() if len(rows)}
    chosen = [chosen_rows(rows) for rows in kinds.values()]
    columns = [
        Column(title.capitalize(), "", [_cell(rows[i], root, azimuth_deg) for rows in chosen])
        for i, title in enumerate(SHOWN)
    ]
    method = str(frame["method"].iloc[0])
    name = one_line(str(display_names(frame)["method"].get(method, method)))
    return draw_sheet(
        f"{name}: the best, the median and the worst asset, by Match",
        list(kinds),
        columns,
        ["truth", "asset"],
        TILE_PX,
        f"Of {len(frame)} assets. The number is Match; the truth has 1.",
    )


def _cell(row: pd.Series, root: Path, azimuth_deg: float) -> Picture:
    prompt, run = str(row["prompt"]), run_of(root / str(row["folder"]))
    views = [*true_pictures(run, prompt, [azimuth_deg]), *asset_pictures(run, row, [azimuth_deg])]
    return Picture(views, f"{one_line(prompt)}   {row[FIRST]:.2f}")
