"""`python -m evaluation.contact_sheet`: one picture of all results; rows are prompts, columns the ground
truth and the methods.

Toy prompts show the ground truth, seen from the cameras of a multi-view run, and their assets at the
fitted turn. A canvas has one picture. With several seeds the lowest is shown.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from evaluation.command import command, output_root
from evaluation.figures.drawing import Column, Picture, draw_sheet
from evaluation.metrics.load import load_metrics
from evaluation.metrics.renders import open_rgb, pose
from evaluation.metrics.truth import is_toy, truth
from evaluation.results.aggregate import (
    ROW,
    Panel,
    groups,
    order_methods,
    panels,
    row_labels,
    split_settings,
)
from evaluation.results.collect import Results, collect
from evaluation.results.names import display_names
from trace_bench.run_folder.manifest import read_manifest
from trace_bench.run_folder.reading import Run, natural
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic
from trace_bench.system.text import one_line, printable

#: Numbers below a picture: column of the frame -> format.
FIGURES = {"match": "Match {:.2f}", "colour_error": "ΔE {:.0f}", "clip_score": "CLIP {:.0f}"}
#: What they mean, below the sheet.
LEGEND = {
    "match": "Match: share of both silhouettes with the right place and colour; the truth has 1.",
    "colour_error": "ΔE: colour difference per pixel of the true silhouette; 2 is hardly seen.",
    "clip_score": "CLIP: 100 times the cosine of picture and prompt.",
}
TURNED = "Toy assets are shown at the azimuth at which they fit the truth best."
TURN = "azimuth_offset_deg"


@dataclass
class Sheet:
    """The contents of one contact sheet."""

    prompts: list[str]
    columns: list[Column] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    note: str = ""  # what the numbers mean


def nearest_view(run: Run, azimuth_deg: float) -> int:
    """The view with the nearest azimuth."""
    azimuths = np.array([float(camera["azimuth_deg"]) for camera in run.cameras])
    return int(np.argmin(np.abs((azimuths - azimuth_deg + 180.0) % 360.0 - 180.0)))


def make_sheet(panel: Panel, root: Path, views: Mapping[str, float], prompts: int, columns: int) -> Sheet:
    """Collect the pictures of a panel."""
    by_id = panel.frame.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    ids = sorted(by_id.index, key=natural)[:prompts]
    sheet = Sheet([one_line(str(by_id[i])) for i in ids])
    settings, names = split_settings(panel.frame), display_names(panel.frame)
    several = panel.frame["representation"].nunique() > 1
    rigs: dict[str, Run] = {}
    for key, runs in groups(panel.frame, settings)[:columns]:
        labels = row_labels(key, [*ROW, *settings], names)
        details = [labels["representation"]] if several else []
        details += [f"{SETTINGS_SHORT.get(name, name)} {labels[name]}".strip() for name in settings]
        cells = [_run_cell(runs[runs["prompt_id"] == i], root, views, sheet.problems, rigs, i) for i in ids]
        sheet.columns.append(Column(one_line(labels["method"]), one_line(", ".join(details)), cells))
    truths = [_true_cell(by_id[i], rigs.get(i), views) for i in ids]
    if any(cell.views for cell in truths):
        sheet.columns.insert(0, Column("Truth", "", truths))
    known = [name for name in (*LEGEND, TURN) if name in panel.frame and panel.frame[name].notna().any()]
    sheet.note = " ".join(LEGEND.get(name, TURNED) for name in known)
    return sheet


SETTINGS_SHORT = dict.fromkeys(("variant", "protocol"), "") | {
    "guidance_scale": "guidance",
    "init": "from",
    "steps": "steps",
    "views_per_step": "views",
    "resolution": "px",
}


def _run_cell(
    runs: pd.DataFrame,
    root: Path,
    views: Mapping[str, float],
    problems: list[str],
    rigs: dict[str, Run],
    prompt_id: str,
) -> Picture:
    """The asset of one prompt and column, with its scores; empty if it does not exist."""
    if runs.empty:
        return Picture([], "not made")
    row = runs.sort_values("seed").iloc[0]
    try:
        run = run_of(root / str(row["folder"]))
        pictures = asset_pictures(run, row, list(views.values()))
    except TraceBenchError as error:
        problems.append(str(error))
        return Picture([], "unreadable")
    if len(run.cameras) > 1:
        rigs.setdefault(prompt_id, run)
    figures = [
        text.format(row[name]) for name, text in FIGURES.items() if name in row and pd.notna(row[name])
    ]
    return Picture(pictures, "   ".join(figures))


def run_of(folder: Path) -> Run:
    """The run of a folder; raises TraceBenchError if it is gone."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise TraceBenchError(f"{folder} no longer exists.")
    return Run(folder, manifest)


def asset_pictures(run: Run, row: pd.Series, azimuths_deg: Sequence[float]) -> list[Image.Image]:
    """An asset from some sides, turned as fits the truth best; a canvas has one picture."""
    turn = float(row[TURN]) if TURN in row and pd.notna(row[TURN]) else 0.0
    shown = [0] if len(run.cameras) == 1 else [nearest_view(run, azimuth + turn) for azimuth in azimuths_deg]
    return [open_rgb(run.rgb(view)) for view in shown]


def true_pictures(run: Run, prompt: str, azimuths_deg: Sequence[float]) -> list[Image.Image]:
    """The true object, seen from the cameras of a run of a toy prompt."""
    cameras = [run.cameras[nearest_view(run, azimuth)] for azimuth in azimuths_deg]
    true = truth(prompt, int(cameras[0]["height"])).views([pose(camera) for camera in cameras])
    return [Image.fromarray(np.round(rgb * 255).astype(np.uint8)) for rgb in true.rgb]


def _true_cell(prompt: str, rig: Run | None, views: Mapping[str, float]) -> Picture:
    """The true object, seen from the cameras of a run of the same prompt."""
    if rig is None or not is_toy(prompt):
        return Picture([], "")
    return Picture(true_pictures(rig, prompt, list(views.values())), "")


def make_sheets(
    results: Results, root: Path, config: Mapping[str, Any], order: Sequence[str]
) -> tuple[list[Path], list[str]]:
    """Draw and save one sheet per panel; the panel with the most runs becomes contact_sheet.png."""
    if results.frame.empty:
        return [], []
    frame = order_methods(results.frame, order)
    paths, problems = [], []
    size: Callable[[Panel], int] = lambda panel: -len(panel.frame)  # noqa: E731
    for i, panel in enumerate(sorted(panels(frame), key=size)):
        sheet = make_sheet(panel, root, config["views"], config["prompts"], config["columns"])
        problems += sheet.problems
        title = one_line(f"Prompt set {panel.title}, prior {panel.prior}")
        tile, names = int(config["tile_px"]), list(config["views"])
        image = draw_sheet(title, sheet.prompts, sheet.columns, names, tile, sheet.note)
        path = root / ("contact_sheet.png" if i == 0 else f"contact_sheet-{panel.slug}.png")
        content = io.BytesIO()
        image.save(content, "PNG", optimize=True)
        write_atomic(path, content.getvalue())
        paths.append(path)
    return paths, problems


@command("evaluation")
def main(config: DictConfig) -> int:
    root = output_root(config)
    results = collect(root, load_metrics(config))
    settings = OmegaConf.to_container(config.contact_sheet, resolve=True)
    paths, problems = make_sheets(results, root, settings, list(config.tables.order))  # type: ignore[arg-type]
    for path in paths:
        print(f"Contact sheet: {path}")
    if not paths:
        print("No finished runs: start some with `python -m trace_bench`.")
    for problem in [*results.problems, *problems]:
        print(f"Problem: {printable(problem)}")
    return 1 if problems or results.problems else 0


if __name__ == "__main__":
    main()
