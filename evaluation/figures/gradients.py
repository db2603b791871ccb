"""Methods on the same render: the render, the predicted target, and the pixel change that each gradient asks
for (Figure 4 of the paper), from the snapshots of a run.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.figures.base import Data, Drawing, NothingToDraw, said_of
from evaluation.figures.pictures import Block, Image, chosen_prompts, pick_runs, picture_grid
from trace_bench.run_folder.reading import AGAIN
from trace_bench.system.errors import TraceBenchError

HOW = "`python -m trace_bench -m experiment=gradients` makes them"


def draw(
    data: Data, method: str = "trace", against: str = "sds", rows: int = 12, at: Sequence[float] = (0.05, 0.25, 1.0),  # noqa: E501
    prompt_set: str | None = None, prior: str | None = None,
) -> Drawing:  # fmt: skip
    """Draw a row per prompt and per snapshot nearest to the fractions `at` of the run; first view only."""
    runs = pick_runs(data, "gradients", [method], None, prompt_set, prior)
    labels, blocks, shown = [], [], []
    for prompt_id, prompt in chosen_prompts(runs, None, len(runs)):
        of_prompt = runs[runs["prompt_id"] == prompt_id].sort_values(["seed", "folder"])
        first, found = _snapshots(data, of_prompt)
        total = 0 if first is None else int(first["steps"])
        for path in dict.fromkeys(_nearest(found, share * total) for share in at) if found else ():
            labels.append(f"{prompt}, step {int(path.stem)}")
            blocks.append(_row(path, against))
            shown.append(first)
    if not blocks:
        raise NothingToDraw(f"No {data.method(method)} run has snapshots: {HOW}.")
    columns = ["Render", "Target", *(f"{data.method(name)} gradient" for name in (against, method))]
    figure = picture_grid(labels[:rows], columns, blocks[:rows])
    caption = (
        "Gradients as the pixel change they ask for (the negative gradient; grey is no change), each scaled "
        "by the 99th percentile of its magnitude, which is written on it: this change per pixel is the full "
        "range. Renders over white, where the snapshot has that; the target has the background of its step. "
        "First view. "
        f"{said_of(data, pd.DataFrame(shown[:rows]).drop_duplicates('folder'))}"
    )
    return Drawing(figure, caption)


def _snapshots(data: Data, runs: pd.DataFrame) -> tuple[pd.Series | None, list[Path]]:
    """The first run with snapshots, and these."""
    for _, row in runs.dropna(subset=["snapshots"]).iterrows():
        found = sorted((data.root / str(row["snapshots"]) / "snapshots").glob("*.npz"))
        if found:
            return row, found
    return None, []


def _nearest(paths: Sequence[Path], step: float) -> Path:
    return min(paths, key=lambda path: abs(int(path.stem) - step))


def _row(path: Path, against: str) -> list[Block]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise TraceBenchError(f"{path} cannot be read ({error}): {AGAIN}.") from error
    target = arrays.get("target")
    return [
        Block([arrays.get("plain", arrays["rgb"])[0]]),
        Block([target[0]] if target is not None else [], "none"),
        _gradient(arrays, f"_{against}"),
        _gradient(arrays, ""),
    ]


def _gradient(arrays: dict[str, Any], suffix: str) -> Block:
    """The pixel gradient, or the first three latent channels if the render is a latent."""
    found = arrays.get(f"gradient{suffix}")
    if found is not None:
        return Block([change(found[0])], scale=f"± {size(found[0]):.1e}")
    latent = arrays.get(f"latent_gradient{suffix}")
    if latent is None:
        return Block([], "none")
    shown = latent[0, :3].transpose(1, 2, 0)
    return Block([change(shown)], scale=f"± {size(shown):.1e}")


def size(gradient: NDArray[np.floating[Any]]) -> float:
    """The 99th percentile of the magnitude."""
    return float(np.percentile(np.abs(gradient), 99.0))


def change(gradient: NDArray[np.floating[Any]]) -> Image:
    """The negative gradient as an image around mid grey."""
    scale = size(gradient) or 1.0
    return np.round(np.clip(0.5 - 0.5 * gradient / scale, 0.0, 1.0) * 255.0).astype(np.uint8)
