"""Methods side by side: rows are prompts, columns methods (Figures 2, 3, 6 and 7 to 11 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from evaluation.figures.base import Data, Drawing, NothingToDraw
from evaluation.figures.pictures import Block, chosen_prompts, pick_runs, picture_grid, views_of


def draw(
    data: Data, experiment: str, methods: Sequence[str] | None = None, representation: str | None = None,
    prompts: Sequence[str | int] | None = None, rows: int = 6, azimuths: Sequence[float] = (35.0, 180.0),
    prompt_set: str | None = None, prior: str | None = None,
) -> Drawing:  # fmt: skip
    """Of several seeds or settings of a method the first by seed and folder is shown.

    methods: in this order; null: what other systems made, then TraCe.
    prompts: ids in the prompt set; where none of them is there (another set), the first `rows` that are.
    azimuths: degrees, 0 is the front; the rig's nearest views.
    """
    runs = pick_runs(data, experiment, methods, representation, prompt_set, prior)
    if methods is None:
        others = sorted(runs.loc[runs["external"].astype(bool), "method"].unique())
        if not others:
            raise NothingToDraw(
                "No other system's assets are among the runs: "
                "`python -m trace_bench method=external method.asset=FILE` takes one in."
            )
        methods = [*others, "trace"]
    there = [method for method in methods if (runs["method"] == method).any()]
    chosen = chosen_prompts(runs, prompts, rows)
    blocks = [
        [_block(data, runs[(runs["method"] == m) & (runs["prompt_id"] == i)], azimuths) for m in there]
        for i, _ in chosen
    ]
    figure = picture_grid([prompt for _, prompt in chosen], [data.method(m) for m in there], blocks)
    kinds = ", ".join(data.representation(str(name)) for name in sorted(runs["representation"].unique()))
    priors = ", ".join(sorted(runs["prior"].unique()))
    lacking = [data.method(method) for method in methods if method not in there]
    notes = [f"Not made yet: {', '.join(lacking)}."] if lacking else []
    return Drawing(figure, f"{kinds}, prior {priors}; the first seed of each method.", notes=notes)


def _block(data: Data, runs: pd.DataFrame, azimuths: Sequence[float]) -> Block:
    if runs.empty:
        return Block([], "not made")
    row = runs.sort_values(["seed", "folder"]).iloc[0]
    return Block(views_of(data, row, azimuths))
