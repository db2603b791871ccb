"""Quality against cost: one panel per quality metric, methods as points, the Pareto front as a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from evaluation.figures.base import Data, Drawing, NothingToDraw, said_of
from evaluation.figures.style import COLOURS, GREY, HAIR, INK, new_figure, spread
from evaluation.metrics.base import Quantity
from evaluation.results.aggregate import COST, MORE_COST, SHARED, Row, Table, method_table, one_judge
from evaluation.results.missing import notes_on_scores
from evaluation.results.pareto import on_front
from evaluation.tables.method_tables import headlines

_ROW = 0.155  # height of a name in inches


def draw(
    data: Data, cost: str = "tflop", prompt_set: str | None = None, prior: str | None = None,
    representation: str | None = None,
) -> Drawing:  # fmt: skip
    """Draw means over prompts for the prompt set and prior with the most runs; complete rows only.

    representation: null for the one with the most runs; pictures and 3D assets are not compared.
    """
    found = [
        panel
        for panel in data.panels()
        if prompt_set in (None, panel.prompt_set) and prior in (None, panel.prior)
    ]
    if not found:
        raise NothingToDraw(
            "There are no finished runs to compare: run `python -m trace_bench -m method=sds,vsd,trace`."
        )
    frame = found[0].frame
    known = list(frame["representation"].value_counts().index)
    chosen = representation or known[0]
    if chosen not in known:
        raise NothingToDraw(f"figures.pareto.representation={chosen} has no runs: use {' or '.join(known)}.")
    panel, _ = one_judge(replace(found[0], frame=frame[frame["representation"] == chosen]), data.metrics)
    prices = {quantity.name: quantity for quantity in (*COST, SHARED, *MORE_COST)}
    if cost not in prices:
        raise NothingToDraw(f"figures.pareto.cost={cost} is unknown: use one of {', '.join(prices)}.")
    qualities = headlines(panel, data.metrics)
    table = method_table(panel, [*qualities, prices[cost]], data.names)
    qualities = [q for q in qualities if len(_points(table, q, prices[cost])) > 1]
    if not qualities:
        whole = [row for row in table.rows if row.cells[-1].complete]
        if len(whole) < 2:
            raise NothingToDraw(
                f"Fewer than two methods have finished runs of all {panel.prompts} prompts of {panel.title}: "
                "make more with `python -m trace_bench -m method=sds,vsd,trace`, or complete the sweep."
            )
        why = notes_on_scores(panel.frame, data.metrics, data.results, panel.prior)
        raise NothingToDraw(f"Fewer than two methods have complete scores. {' '.join(why)}".strip())
    figure = new_figure(0.6 + 4.2 * len(qualities), max(3.4, 0.9 + _ROW * len(table.rows)))
    for axes, quality in zip(figure.subplots(1, len(qualities), squeeze=False)[0], qualities, strict=True):
        _panel(axes, table, quality, prices[cost])
    own = {row.labels["method"] for row in table.rows for q in qualities if _is_own(row, q)}
    caption = (
        f"Quality against {prices[cost].label} per run ({prices[cost].note}): prompt set {panel.title} "
        f"({panel.prompts} prompts), prior {panel.prior}, means over prompts of means over seeds; the line is the Pareto "  # noqa: E501
        f"front, filled points are on it. {said_of(data, panel.frame, [q.name for q in qualities])}"
    )
    if own:
        caption += f" Not compared where they maximise the number itself: {', '.join(sorted(own))}."
    numbers = [_record(table, q, prices[cost]) for q in qualities]
    return Drawing(figure, caption, pd.concat(numbers, ignore_index=True))


def _points(table: Table, quality: Quantity, price: Quantity) -> list[tuple[Row, float, float]]:
    """(row, cost, quality) of the rows with both complete."""
    found = []
    for row in table.rows:
        cells = {cell.quantity.name: cell for cell in row.cells}
        q, c = cells[quality.name], cells[price.name]
        if q.complete and c.complete:
            found.append((row, c.mean, q.mean))
    return found


def _is_own(row: Row, quality: Quantity) -> bool:
    """Whether the row's method maximised the quality, so that it is compared with no other."""
    return any(cell.optimised for cell in row.cells if cell.quantity.name == quality.name)


def _front(points: Sequence[tuple[Row, float, float]], quality: Quantity) -> list[bool]:
    values = [math.nan if _is_own(row, quality) else q for row, _, q in points]
    return on_front(values, [c for _, c, _ in points], quality)


def _panel(axes: Axes, table: Table, quality: Quantity, price: Quantity) -> None:
    points = _points(table, quality, price)
    front = _front(points, quality)
    best = sorted((c, q) for (_, c, q), on in zip(points, front, strict=True) if on)
    if all(c > 0 for _, c, _ in points):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08, y=0.08)
    axes.update_datalim([(c, q) for _, c, q in points])
    axes.autoscale_view()
    axes.autoscale(False)
    # A staircase: the best quality available at each cost or less.
    xs = [c for c, _ in best] + [axes.get_xlim()[1]]
    ys = [q for _, q in best] + [q for _, q in best[-1:]]
    if best:
        axes.step(xs, ys, where="post", color=HAIR, linewidth=1.2, zorder=1)
    for (_, c, q), on in zip(points, front, strict=True):
        axes.plot(
            c, q, "o", markersize=6, color=COLOURS[0] if on else "white",
            markeredgecolor=COLOURS[0] if on else GREY, zorder=3,
        )  # fmt: skip
    _label(axes, [
        (_name(table, row) + (" (not compared)" if _is_own(row, quality) else ""), c, q, INK if on else GREY)
        for (row, c, q), on in zip(points, front, strict=True)
    ])  # fmt: skip
    axes.set_xlabel(price.label + " a run")
    better = "higher" if quality.higher_is_better else "lower"
    axes.set_title(f"{quality.label}, {better} is better", fontweight="bold", fontsize=9.5)


def _label(axes: Axes, points: Sequence[tuple[str, float, float, str]]) -> None:
    """Names (name, x, y, colour) right of the panel, in the order of the points, each joined to its point."""
    low, high = axes.get_ylim()
    height = (high - low) * _ROW / (axes.get_window_extent().height / axes.figure.dpi)
    points = sorted(points, key=lambda point: -point[2])
    wanted = [min(y, high - (i + 0.5) * height) for i, (_, _, y, _) in enumerate(points)]
    wanted = [max(y, low + (len(points) - i - 0.5) * height) for i, y in enumerate(wanted)]
    places = spread(wanted, [height] * len(points))
    for (name, x, y, colour), place in zip(points, places, strict=True):
        axes.annotate(
            name, (x, y), (1.04, (place - low) / (high - low)), textcoords="axes fraction", va="center",
            fontsize=8.0, color=colour, annotation_clip=False, zorder=2,
            arrowprops={
                "arrowstyle": "-", "color": HAIR, "linewidth": 0.7, "shrinkA": 1.0, "shrinkB": 3.0,
                "relpos": (0.0, 0.5),
            },
        )  # fmt: skip


def _name(table: Table, row: Row) -> str:
    """The method, plus the settings that distinguish rows."""
    several = {column for column in table.label_columns if len({r.labels[column] for r in table.rows}) > 1}
    words = [row.labels["method"]] + [row.labels[c] for c in table.label_columns if c in several - {"method"}]
    return " ".join(words)


def _record(table: Table, quality: Quantity, price: Quantity) -> pd.DataFrame:
    points = _points(table, quality, price)
    front = _front(points, quality)
    rows = [
        {"quality": quality.name, **row.labels, price.name: c, "value": q, "front": on}
        for (row, c, q), on in zip(points, front, strict=True)
        if not math.isnan(q)
    ]
    return pd.DataFrame(rows)
