"""A score while assets are made: over steps and over counted TFLOP, one line per method, bands over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from evaluation.figures.base import Data, Drawing, NothingToDraw, quantity_of, said_of
from evaluation.figures.style import COLOURS, GREY, HAIR, label_lines, new_figure
from evaluation.results.aggregate import SETTINGS, order_methods

HOW = "`python -m trace_bench -m experiment=convergence` and `python -m evaluation.score` make them"
SAME = ["prompt_set", "prior", "representation", *(name for name in SETTINGS if name != "steps")]
MARKERS = "os^Dv<>"
COLUMNS = 6
Kinds = Sequence[tuple[str, str]]  # columns on the x-axis, with their labels
Lines = Mapping[str, Mapping[str, pd.DataFrame]]  # by such a column and by method
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
    kinds = [("done_steps", "Steps")]
    if points["tflop"].notna().all():
        kinds.append(("tflop", "Counted TFLOP"))
    lines = {
        by: {name: _line(points[points["method"] == name], quantity, by) for name in methods}
        for by, _ in kinds
    }
    spread = any(line["std"].notna().any() for line in lines["done_steps"].values())
    is_counted = len(kinds) > 1
    is_crowded = len(methods) > len(COLOURS)
    figure = (_apart if is_crowded else _together)(data, shown.label, kinds, lines)
    better = {True: ", higher is better", False: ", lower is better", None: ""}[shown.higher_is_better]
    figure.suptitle(f"{shown.label} while the asset is made{better}", fontsize=10.5, fontweight="bold", x=0.3)
    band = (
        "the band is ± one standard deviation over seeds (ddof 1) of the mean over prompts"
        if spread
        else "one seed, so there is no band"
    )
    caption = (
        f"{shown.label} ({shown.note}) of the evaluation renders after some steps, over steps"
        f"{' and over the counted work of the prior' if is_counted else ''}; lines are means over prompts "
        f"and seeds, {band}. {'Grey: the other methods. ' if is_crowded else ''}"
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


def _together(data: Data, label: str, kinds: Kinds, lines: Lines) -> Figure:
    """All methods in the same axes, each in a colour."""
    figure = new_figure(9.6 if len(kinds) > 1 else 5.6, 3.9)
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, (by, x_label) in zip(panels, kinds, strict=True):
        of_kind = lines[by]
        for line, colour, marker in zip(of_kind.values(), COLOURS, MARKERS, strict=False):
            _draw(axes, line, by, colour, marker)
        axes.set_xlabel(x_label)
        axes.set_xlim(left=0)
        axes.tick_params(colors=GREY)
        figure.draw_without_rendering()
        furthest = max(float(line[by].iloc[-1]) for line in of_kind.values())
        ends = [(furthest, float(line["mean"].iloc[-1])) for line in of_kind.values()]
        label_lines(axes, ends, [data.method(name) for name in of_kind], COLOURS[: len(of_kind)])
    panels[0].set_ylabel(label)
    return figure


def _apart(data: Data, label: str, kinds: Kinds, lines: Lines) -> Figure:
    """Axes for each method, with the lines of the others in grey: there are more methods than colours."""
    methods = list(lines["done_steps"])
    rows = -(-len(methods) // COLUMNS)
    figure = new_figure(0.6 + 1.55 * COLUMNS, (0.9 + 1.3 * rows) * len(kinds))
    for block, (by, x_label) in zip(
        figure.subfigures(len(kinds), 1, squeeze=False)[:, 0], kinds, strict=True
    ):
        panels = block.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for axes, name in zip(panels.flat, methods, strict=False):
            for other in methods:
                if other != name:
                    axes.plot(lines[by][other][by], lines[by][other]["mean"], color=HAIR, linewidth=0.7)
            _draw(axes, lines[by][name], by, COLOURS[0], MARKERS[0])
            axes.set_title(data.method(name), fontsize=9, pad=4)
            axes.tick_params(colors=GREY, labelsize=8)
        for axes in panels.flat[len(methods) :]:
            axes.set_axis_off()
        if by == "tflop":  # a step of one method costs many times that of another
            panels[0, 0].set_xscale("log", nonpositive="mask")
            panels[0, 0].xaxis.set_minor_locator(NullLocator())
        else:
            panels[0, 0].set_xlim(left=0)
        block.supxlabel(x_label, fontsize=9)
        block.supylabel(label, fontsize=9)
    return figure


def _draw(axes: Axes, line: pd.DataFrame, by: str, colour: str, marker: str) -> None:
    """A line with its band, if it has one."""
    if line["std"].notna().any():
        low, high = line["mean"] - line["std"], line["mean"] + line["std"]
        axes.fill_between(line[by], low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(line[by], line["mean"], color=colour, marker=marker, markersize=3.5)
