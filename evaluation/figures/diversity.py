"""The seeds of one method side by side: rows are prompts, columns seeds (Figure 5 of the paper)."""

from __future__ import annotations

from evaluation.figures.base import Data, Drawing, NothingToDraw
from evaluation.figures.pictures import Block, chosen_prompts, pick_runs, picture_grid, views_of
from evaluation.results.aggregate import SETTINGS


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
    blocks = []
    for prompt_id, _ in chosen:
        by_seed = runs[runs["prompt_id"] == prompt_id].drop_duplicates("seed").set_index("seed")
        blocks.append(
            [
                Block(views_of(data, by_seed.loc[seed], [azimuth]))
                if seed in by_seed.index
                else Block([], "—")
                for seed in columns
            ]
        )
    figure = picture_grid([prompt for _, prompt in chosen], [f"seed {seed}" for seed in columns], blocks)
    first = runs.iloc[0]
    caption = (
        f"{data.method(method)}, {data.representation(first['representation'])}, prior {first['prior']}."
    )
    others = len(settings) - 1
    notes = [f"{others} other setting{'s' if others > 1 else ''} of the method not shown."] if others else []
    return Drawing(figure, caption, notes=notes)
