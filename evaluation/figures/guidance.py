"""How sensitive each method is to the guidance scale: a panel per method, a line per prompt and their mean.

Not in the paper, whose Figure 1 shows TraCe alone. The runs are those of `experiment=guidance`.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from evaluation.figures.base import Data, Drawing, NothingToDraw, quantity_of, said_of
from evaluation.figures.cfg_ablation import FEWEST, sweep
from evaluation.figures.style import COLOURS, HAIR, new_figure
from evaluation.metrics.base import Quantity

COLUMNS = 5
HOW = "`python -m trace_bench -m experiment=guidance`, then `python -m evaluation.score`, makes the runs"


def draw(data: Data, quantity: str = "match") -> Drawing:
    """The figure of conf/figure/guidance.yaml: every method that has runs at three or more scales."""
    shown = quantity_of(data, quantity)
    found = sweeps(data, quantity)
    if not found:
        raise NothingToDraw(f"No method has runs with three or more guidance scales and a {quantity}. {HOW}.")
    rows = -(-len(found) // COLUMNS)
    columns = min(COLUMNS, len(found))
    figure = new_figure(0.6 + 1.75 * columns, 0.7 + 1.55 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    scales = sorted({scale for runs in found.values() for scale in runs["guidance_scale"]})
    for axes, (method, runs) in zip(panels.flat, found.items(), strict=False):
        _panel(axes, runs, shown)
        axes.set_title(data.method(method), fontsize=9, pad=5)
    for axes in panels.flat[len(found) :]:
        axes.set_axis_off()
    for axes in panels.flat[max(0, len(found) - columns) : len(found)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    first = panels[0, 0]
    first.set_xscale("log")
    first.xaxis.set_major_locator(FixedLocator(scales))
    first.xaxis.set_minor_locator(NullLocator())
    first.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.supxlabel("Guidance scale w, as uncond + w (cond − uncond)", fontsize=9)
    figure.supylabel(shown.label, fontsize=9)
    everything = pd.concat(found.values())
    caption = (
        f"{shown.label} ({shown.note}) over the guidance scale. Grey lines are prompts, the coloured line is "
        "their mean at the scales that all prompts have; the ring marks its best scale. "
        f"{said_of(data, everything, [quantity])}"
    )
    return Drawing(figure, caption, _numbers(found, quantity))


def sweeps(data: Data, quantity: str) -> dict[str, pd.DataFrame]:
    """Per method, in the order of the tables, its sweep without prompts of fewer than three scales."""
    methods = [] if data.runs.empty else list(dict.fromkeys(data.runs["method"]))
    known = {name: i for i, name in enumerate(data.order)}
    found = {}
    for method in sorted(methods, key=lambda name: (known.get(name, len(known)), name)):
        try:
            runs = sweep(data, method, quantity)
        except NothingToDraw:
            continue
        scales = runs.groupby("prompt")["guidance_scale"].transform("nunique")
        if (scales >= FEWEST).any():
            found[method] = runs[scales >= FEWEST]
    return found


def _panel(axes: Axes, runs: pd.DataFrame, shown: Quantity) -> None:
    for _, own in runs.groupby("prompt"):
        line = own.groupby("guidance_scale")[shown.name].mean()
        axes.plot(line.index, line, color=HAIR, linewidth=1.0)
    mean = means(runs, shown.name)
    if mean.empty:  # the prompts have no scale in common
        return
    axes.plot(mean.index, mean, color=COLOURS[0], marker="o", markersize=2.6)
    best = mean.idxmin() if shown.higher_is_better is False else mean.idxmax()
    axes.plot(best, mean[best], "o", color="white", markeredgecolor=COLOURS[0], markersize=6)


def means(runs: pd.DataFrame, quantity: str) -> pd.Series:
    """The mean over prompts of the means over seeds, at the scales that all prompts have."""
    cells = runs.groupby(["guidance_scale", "prompt"])[quantity].mean().unstack()
    return cells.dropna().mean(axis=1)


def _numbers(found: Mapping[str, pd.DataFrame], quantity: str) -> pd.DataFrame:
    parts = [
        means(runs, quantity)
        .rename(quantity)
        .reset_index()
        .assign(method=method, prompts=runs["prompt"].nunique())
        for method, runs in found.items()
    ]
    return pd.concat(parts)[["method", "guidance_scale", "prompts", quantity]]
