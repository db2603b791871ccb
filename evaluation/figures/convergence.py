"""A score while assets are made: over steps and over counted TFLOP, one line per method, bands over seeds."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from evaluation.figures.base import Data, Drawing, NothingToDraw, quantity_of, said_of
from evaluation.figures.style import COLOURS, GREY, label_lines, new_figure
from evaluation.results.aggregate import SETTINGS, order_methods

HOW = "`python -m trace_bench -m experiment=convergence` and `python -m evaluation.score` make them"
SAME = ["prompt_set", "prior", "representation", *(name for name in SETTINGS if name != "steps")]
MARKERS = "os^Dv<>P"
_COLUMNS = ["method", "prompt", "seed", "done_steps", "tflop", "representation", "prior", "folder"]


def draw(
    data: Data, quantity: str = "match", prompt_set: str | None = None, prior: str | None = None
) -> Drawing:
    """Draw the mean over prompts; the band is ± the standard deviation over seeds of these means.

    Only runs with renders of single steps (`renders_at`) and scores of all of them; only seeds and steps
    with all of a method's prompts.
    """
    shown = quantity_of(data, quantity)
    points = _points(data, quantity, prompt_set, prior)
    methods = list(dict.fromkeys(points["method"]))
    if len(methods) > len(MARKERS) * len(COLOURS):
        raise NothingToDraw("There are too many methods for one figure.")
    is_counted = bool(points["tflop"].notna().all())
    kinds = [("done_steps", "Steps")] + ([("tflop", "Counted TFLOP")] if is_counted else [])
    figure = new_figure(9.6 if is_counted else 5.6, 3.9)
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    spread = False
    for axes, (by, label) in zip(panels, kinds, strict=True):
        ends, colours = [], []
        for i, method in enumerate(methods):
            line = _line(points[points["method"] == method], quantity, by)
            spread |= _draw(axes, line, by, COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
            ends.append((float(line[by].iloc[-1]), float(line["mean"].iloc[-1])))
            colours.append(COLOURS[i % len(COLOURS)])
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        figure.draw_without_rendering()
        furthest = max(x for x, _ in ends)
        label_lines(axes, [(furthest, y) for _, y in ends], [data.method(m) for m in methods], colours)
    better = {True: ", higher is better", False: ", lower is better", None: ""}[shown.higher_is_better]
    panels[0].set_ylabel(shown.label)
    figure.suptitle(f"{shown.label} while the asset is made{better}", fontsize=10.5, fontweight="bold", x=0.3)
    band = (
        "the band is ± one standard deviation over seeds (ddof 1) of the mean over prompts"
        if spread
        else "one seed, so there is no band"
    )
    caption = (
        f"{shown.label} ({shown.note}) of the evaluation renders after some steps, over steps"
        f"{' and over the counted work of the prior' if is_counted else ''}; lines are means over prompts "
        f"and seeds, {band}. "
        f"{said_of(data, points.drop_duplicates(['method', 'prompt', 'seed']), [quantity])}"
    )
    return Drawing(figure, caption, points[[*_COLUMNS, quantity]])


def _points(data: Data, quantity: str, prompt_set: str | None, prior: str | None) -> pd.DataFrame:
    """Scores after single steps, and after the last one, of the largest group of comparable runs."""
    steps = data.results.steps
    for column, wanted in (("prompt_set", prompt_set), ("prior", prior)):
        if wanted is not None and not steps.empty:
            steps = steps[steps[column] == wanted]
    if steps.empty or not steps[quantity].notna().any():
        raise NothingToDraw(f"There are no scored renders of single steps: {HOW}.")
    order = order_methods(steps, data.order).reset_index(drop=True)
    same = [name for name in SAME if name in order]
    keys = ["prompt_set", "prior", "representation"]
    _, largest = max(order.groupby(keys), key=lambda group: len(group[1]))
    split = [name for name in same if name not in keys]
    chosen = []
    for _, own in largest.groupby("method", observed=True):
        parts = [part for _, part in own.groupby([*split, "steps"], dropna=False)]
        chosen.append(max(parts, key=len))
    found = pd.concat(chosen)
    judges = [
        f"{m.name}_judge" for m in data.metrics.values() if any(q.name == quantity for q in m.quantities)
    ]
    ends = data.runs.assign(done_steps=data.runs["steps"])
    identity = [name for name in ("method", "prompt", "seed", "steps", *same) if name in ends]
    known = found[identity].drop_duplicates()
    ends = ends.merge(known, on=identity, how="inner")
    found["method"] = found["method"].astype(str)
    ends["method"] = ends["method"].astype(str)
    found = found[found["done_steps"] != found["steps"]]
    found = pd.concat([found, ends], ignore_index=True)
    found = found[found[quantity].notna()]
    for judge in judges:
        if found[judge].nunique() > 1:
            raise NothingToDraw(
                f"{quantity} has several judges: `python -m evaluation.score` makes them one."
            )
    names = [str(name) for name in dict.fromkeys(pd.concat(chosen)["method"])]
    return found.sort_values(
        ["method", "done_steps", "seed"], key=lambda c: c.map(names.index) if c.name == "method" else c
    )


def _line(points: pd.DataFrame, quantity: str, by: str) -> pd.DataFrame:
    """Per number of steps: the mean over prompts, then mean and standard deviation over seeds."""
    prompts = points["prompt"].nunique()
    cells = points.groupby(["done_steps", "seed"]).agg(
        value=(quantity, "mean"), n=("prompt", "nunique"), tflop=("tflop", "mean")
    )
    cells = cells[cells["n"] == prompts].reset_index()
    line = cells.groupby("done_steps").agg(
        mean=("value", "mean"), std=("value", "std"), tflop=("tflop", "mean")
    )
    return line.reset_index().dropna(subset=[by, "mean"]).sort_values(by)


def _draw(axes: Axes, line: pd.DataFrame, by: str, colour: str, marker: str) -> bool:
    """Draw a line; returns whether it has a band."""
    has_band = bool(line["std"].notna().any())
    if has_band:
        low, high = line["mean"] - line["std"], line["mean"] + line["std"]
        axes.fill_between(line[by], low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(line[by], line["mean"], color=colour, marker=marker, markersize=3.5)
    axes.tick_params(colors=GREY)
    return has_band
