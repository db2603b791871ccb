"""The seeds of one method side by side: rows are prompts, columns seeds (Figure 5 of the paper), with a
number for their diversity and the quality.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from skimage.color import deltaE_ciede2000, rgb2lab

from evaluation.figures.base import Data, Drawing, NothingToDraw, said_of
from evaluation.figures.pictures import Block, Image, chosen_prompts, pick_runs, picture_grid, views_of
from evaluation.metrics.base import Quantity
from evaluation.results.aggregate import SETTINGS

VIEWS = (0.0, 90.0, 180.0, 270.0)  # degrees; where seeds are compared


def draw(
    data: Data, method: str = "trace", representation: str | None = None, rows: int = 4, seeds: int = 6,
    azimuth: float = 35.0, prompt_set: str | None = None, prior: str | None = None,
) -> Drawing:  # fmt: skip
    """Draw prompts with several seeds, at the guidance scale and settings with the most seeds."""
    runs = pick_runs(data, "diversity", [method], representation, prompt_set, prior)
    settings = [part for _, part in runs.groupby(["prior", "representation", *SETTINGS], dropna=False)]
    runs = max(settings, key=lambda part: part["seed"].nunique())
    counts = runs.groupby("prompt_id")["seed"].nunique()
    if counts.max() < 2:
        raise NothingToDraw(
            f"No prompt has several seeds of {data.method(method)}: "
            "`python -m trace_bench -m experiment=diversity` makes them."
        )
    runs = runs[runs["prompt_id"].isin(counts[counts > 1].index)]
    columns = sorted(runs["seed"].unique())[:seeds]
    chosen = chosen_prompts(runs, None, rows)
    quality = _quality(data, runs)
    blocks, labels, records = [], [], []
    for prompt_id, prompt in chosen:
        by_seed = runs[runs["prompt_id"] == prompt_id].drop_duplicates("seed").set_index("seed")
        shown = by_seed.loc[[seed for seed in columns if seed in by_seed.index]]
        record = {"prompt": prompt, "seeds": len(shown)} | _numbers(data, shown, quality)
        records.append(record)
        labels.append(f"{prompt}\n{_text(record, quality)}")
        blocks.append(
            [
                Block(views_of(data, by_seed.loc[seed], [azimuth]))
                if seed in by_seed.index
                else Block([], "—")
                for seed in columns
            ]
        )
    drawn = runs[runs["seed"].isin(columns) & runs["prompt_id"].isin([i for i, _ in chosen])]
    figure = picture_grid(labels, [f"seed {seed}" for seed in columns], blocks)
    cost = (
        "" if quality is None else f" {quality.label}: {quality.note}, mean ± standard deviation over seeds."
    )
    caption = (
        f"Seeds of {data.method(method)}, at azimuth {azimuth:g}° (0° is the front), on white. Diversity: "
        "mean colour difference (CIEDE2000) over all pairs of the seeds shown and over the views at "
        f"{', '.join(f'{view:g}°' for view in VIEWS)}, per pixel that is not white in either; 0 is equal "
        f"seeds, and seeds that only face another way differ too.{cost} "
        f"{said_of(data, drawn, [quality.name] if quality else [])}"
    )
    others = len(settings) - 1
    notes = [f"{others} other setting{'s' if others > 1 else ''} of the method not shown."] if others else []
    return Drawing(figure, caption, pd.DataFrame(records), notes)


def _quality(data: Data, runs: pd.DataFrame) -> Quantity | None:
    """The first main number of a metric that these runs have."""
    for metric in data.metrics.values():
        for q in metric.quantities:
            if q.kind == "mean" and not q.partial and q.name in runs and runs[q.name].notna().any():
                return q
    return None


def _numbers(data: Data, by_seed: pd.DataFrame, quality: Quantity | None) -> dict[str, float]:
    found = {"diversity": diversity([views_of(data, row, VIEWS) for _, row in by_seed.iterrows()])}
    if quality is not None:
        found |= {"quality": by_seed[quality.name].mean(), "quality_std": by_seed[quality.name].std()}
    return found


def diversity(assets: list[list[Image]]) -> float:
    """Mean CIEDE2000 over the pairs of assets, each the same views [H, W, 3] over white; nan for one."""
    labs = [[rgb2lab(view) for view in views] for views in assets]
    found = []
    for first, second in combinations(labs, 2):
        for a, b in zip(first, second, strict=True):
            there = (a[..., 0] < 99.0) | (b[..., 0] < 99.0)
            found.append(float(deltaE_ciede2000(a[there], b[there]).mean()) if there.any() else 0.0)
    return float(np.mean(found)) if found else float("nan")


def _text(record: dict[str, object], quality: Quantity | None) -> str:
    lines = f"diversity {record['diversity']:.1f}"
    if quality is None:
        return lines
    digits = quality.decimals
    return f"{lines}\n{quality.label} {record['quality']:.{digits}f} ± {record['quality_std']:.{digits}f}"
