"""Figure 1: a score against the guidance scale, one line per prompt, bands over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from evaluation.figures.base import Data, Drawing, NothingToDraw, said_of
from evaluation.figures.style import COLOURS, GREY, SHADE, label_lines, new_figure
from evaluation.metrics.base import Metric, Quantity
from evaluation.results.aggregate import SETTINGS
from evaluation.results.missing import notes_on_scores
from trace_bench.run_folder.reading import natural

FEWEST = 3  # guidance scales per line
FIXED = ["prompt_set", "prior", "representation", *(name for name in SETTINGS if name != "guidance_scale")]


def draw(
    data: Data, method: str = "trace", quantity: str = "clip_score", prompts: int = 4,
    shade: Sequence[float] | None = (10.0, 30.0), scale: str = "log", label: str | None = None,
) -> Drawing:  # fmt: skip
    """Draw the method's guidance sweep with the most scales; all other settings are equal."""
    runs = sweep(data, method, quantity)
    shown = _quantity(data, quantity)
    shown = replace(shown, label=label or shown.label)
    lines = _lines(runs, quantity, prompts)
    figure = new_figure(7.2, 3.9)
    axes = figure.subplots()
    axes.set_xscale(scale)
    ends, colours = [], [COLOURS[i % len(COLOURS)] for i in range(len(lines))]
    for colour, (_, line) in zip(colours, lines, strict=True):
        _draw_line(axes, line, colour, shown)
        ends.append((float(line.index[-1]), float(line["mean"].iloc[-1])))
    _axes(axes, sorted(runs["guidance_scale"].unique()), shown, shade)
    axes.set_title(f"{shown.label} over guidance, {data.method(method)}", fontweight="bold")
    figure.draw_without_rendering()
    label_lines(axes, ends, [prompt for prompt, _ in lines], colours)
    return Drawing(figure, _caption(data, runs, lines, shown, shade), runs[[*_COLUMNS, quantity]])


_COLUMNS = ["method", "prompt", "guidance_scale", "seed", "representation", "prior", "folder"]


def sweep(data: Data, method: str, quantity: str) -> pd.DataFrame:
    """The runs of the sweep; raises NothingToDraw if there are none."""
    runs = data.runs
    if not runs.empty and quantity not in runs:
        raise NothingToDraw(
            f"figures.cfg_ablation.quantity={quantity} is not a quantity of the configured metrics."
        )
    mine = runs if runs.empty else runs[(runs["method"] == method) & runs["guidance_scale"].notna()]
    if not runs.empty:
        runs = runs[(runs["method"] == method) & runs[quantity].notna() & runs["guidance_scale"].notna()]
    judges = [f"{metric.name}_judge" for metric in _owners(data, quantity)]  # never mix two judges
    groups = [] if runs.empty else [part for _, part in runs.groupby([*FIXED, *judges], dropna=False)]
    best = max(groups, key=lambda part: (part["guidance_scale"].nunique(), len(part)), default=None)
    if best is None or best["guidance_scale"].nunique() < FEWEST:
        said = f"No {data.method(method)} runs with {FEWEST} or more guidance scales have a {quantity}"
        if len(mine) and mine["guidance_scale"].nunique() >= FEWEST:
            owners = {metric.name: metric for metric in _owners(data, quantity)}
            raise NothingToDraw(f"{said}. {' '.join(notes_on_scores(mine, owners, data.results))}")
        small = " prior=tiny" if len(mine) and set(mine["prior"]) == {"tiny"} else ""
        raise NothingToDraw(
            f"{said}: `python -m trace_bench -m experiment=cfg_ablation method={method}{small}` makes the "
            f"runs, {data.results.command('evaluation.score')} then scores them."
        )
    return best


def _lines(runs: pd.DataFrame, quantity: str, most: int) -> list[tuple[str, pd.DataFrame]]:
    """Per prompt: mean, std (ddof 1) and seed count at each scale; the prompts with the most scales."""
    found = {
        key: part.groupby("guidance_scale")[quantity].agg(["mean", "std", "count"]).sort_index()
        for key, part in runs.groupby(["prompt_id", "prompt"])
    }
    chosen = sorted(found, key=lambda key: (-len(found[key]), natural(str(key[0]))))[:most]  # type: ignore[index]
    chosen = sorted(chosen, key=lambda key: natural(str(key[0])))  # type: ignore[index]
    return [(str(key[1]), found[key]) for key in chosen if len(found[key]) >= FEWEST]  # type: ignore[index]


def _draw_line(axes: Axes, line: pd.DataFrame, colour: str, shown: Quantity) -> None:
    x, mean, std = line.index.to_numpy(float), line["mean"].to_numpy(), line["std"].to_numpy()
    if line["count"].max() > 1:
        axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.16, linewidth=0)
    axes.plot(x, mean, color=colour, marker="o", markersize=2.6)
    top = line["mean"].argmin() if shown.higher_is_better is False else line["mean"].argmax()
    axes.plot(
        x[top], mean[top], "o", color="white", markeredgecolor=colour, markersize=6, markeredgewidth=1.5
    )


def _axes(axes: Axes, scales: Sequence[float], shown: Quantity, shade: Sequence[float] | None) -> None:
    if shade is not None:
        low, high = shade
        axes.axvspan(low, high, color=SHADE, zorder=0, linewidth=0)
        middle = (low * high) ** 0.5 if axes.get_xscale() == "log" else (low + high) / 2
        axes.annotate(
            f"{low:g} to {high:g}", (middle, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", fontsize=8, color=GREY,
        )  # fmt: skip
    ticks = [s for s in (1, 2, 5, 10, 20, 30, 50, 100, 200) if scales[0] <= s <= scales[-1]]
    axes.xaxis.set_major_locator(FixedLocator(ticks if len(ticks) > 1 else scales))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(scales[0] * 0.95, scales[-1] * 1.03)
    axes.set_xlabel("Guidance scale w, as uncond + w (cond − uncond)")
    axes.set_ylabel(shown.label)
    axes.margins(y=0.08)


def _owners(data: Data, quantity: str) -> list[Metric]:
    """The metric that defines a quantity."""
    return [m for m in data.metrics.values() if any(q.name == quantity for q in m.quantities)]


def _quantity(data: Data, name: str) -> Quantity:
    found = [q for metric in _owners(data, name) for q in metric.quantities if q.name == name]
    return found[0] if found else Quantity(name, name, "")


def _caption(
    data: Data, runs: pd.DataFrame, lines: list[tuple[str, pd.DataFrame]], shown: Quantity,
    shade: Sequence[float] | None,
) -> str:  # fmt: skip
    first, seeds = runs.iloc[0], int(max(line["count"].max() for _, line in lines))
    band = (
        f"lines are means over {seeds} seeds, bands ± their standard deviation" if seeds > 1 else "one seed"
    )
    shaded = ""
    if shade is not None:
        shaded = f" Shade: guidance {shade[0]:g} to {shade[1]:g}, which the paper finds near-optimal."
    return (
        f"{shown.label} ({shown.note}) against the guidance scale: {data.method(first['method'])}, "
        f"{data.representation(first['representation'])}; "
        f"{band}; an open circle marks the best value of each line.{shaded} "
        f"{said_of(data, runs[runs['prompt'].isin([prompt for prompt, _ in lines])], [shown.name])}"
    )
