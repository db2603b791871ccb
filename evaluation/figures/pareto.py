"""Quality against cost: one panel per quality metric, methods as points, the Pareto front as a line."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes

from evaluation.figures.base import Data, Drawing, NothingToDraw, said_of
from evaluation.figures.style import COLOURS, GREY, HAIR, INK, new_figure
from evaluation.metrics.base import Quantity
from evaluation.results.aggregate import COST, MORE_COST, SHARED, Row, Table, method_table, one_judge
from evaluation.results.missing import notes_on_scores
from evaluation.results.pareto import on_front
from evaluation.tables.method_tables import headlines


def draw(data: Data, cost: str = "tflop", prompt_set: str | None = None, prior: str | None = None) -> Drawing:
    """Draw means over prompts for the prompt set and prior with the most runs; complete rows only."""
    found = [
        panel
        for panel in data.panels()
        if prompt_set in (None, panel.prompt_set) and prior in (None, panel.prior)
    ]
    if not found:
        raise NothingToDraw(
            "There are no finished runs to compare: run `python -m trace_bench -m method=sds,vsd,trace`."
        )
    panel, _ = one_judge(found[0], data.metrics)
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
    figure = new_figure(0.6 + 3.3 * len(qualities), 3.4)
    for axes, quality in zip(figure.subplots(1, len(qualities), squeeze=False)[0], qualities, strict=True):
        _panel(axes, table, quality, prices[cost])
    caption = (
        f"Quality against {prices[cost].label} per run ({prices[cost].note}): prompt set {panel.title} "
        f"({panel.prompts} prompts), prior {panel.prior}, means over prompts of means over seeds; the line is the Pareto "  # noqa: E501
        f"front, filled points are on it. {said_of(data, panel.frame, [q.name for q in qualities])}"
    )
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


def _panel(axes: Axes, table: Table, quality: Quantity, price: Quantity) -> None:
    points = _points(table, quality, price)
    front = on_front([q for *_, q in points], [c for _, c, _ in points], quality)
    best = sorted((c, q) for (_, c, q), on in zip(points, front, strict=True) if on)
    axes.margins(x=0.18, y=0.16)
    axes.update_datalim([(c, q) for _, c, q in points])
    axes.autoscale_view()
    axes.autoscale(False)
    # A staircase: the best quality available at each cost or less.
    xs = [c for c, _ in best] + [axes.get_xlim()[1]]
    ys = [q for _, q in best] + [best[-1][1]]
    axes.step(xs, ys, where="post", color=HAIR, linewidth=1.2, zorder=1)
    for (row, c, q), on in zip(points, front, strict=True):
        axes.plot(
            c, q, "o", markersize=6, color=COLOURS[0] if on else "white",
            markeredgecolor=COLOURS[0] if on else GREY, zorder=3,
        )  # fmt: skip
        axes.annotate(
            _name(table, row),
            (c, q),
            (7, 4),
            textcoords="offset points",
            fontsize=8.5,
            color=INK if on else GREY,
        )
    axes.set_xlabel(price.label + " a run")
    better = "higher" if quality.higher_is_better else "lower"
    axes.set_title(f"{quality.label}, {better} is better", fontweight="bold", fontsize=9.5)


def _name(table: Table, row: Row) -> str:
    """The method, plus the settings that distinguish rows."""
    several = {column for column in table.label_columns if len({r.labels[column] for r in table.rows}) > 1}
    words = [row.labels["method"]] + [row.labels[c] for c in table.label_columns if c in several - {"method"}]
    return " ".join(words)


def _record(table: Table, quality: Quantity, price: Quantity) -> pd.DataFrame:
    points = _points(table, quality, price)
    front = on_front([q for *_, q in points], [c for _, c, _ in points], quality)
    rows = [
        {"quality": quality.name, **row.labels, price.name: c, "value": q, "front": on}
        for (row, c, q), on in zip(points, front, strict=True)
        if not math.isnan(q)
    ]
    return pd.DataFrame(rows)
