"""Preferences of a user study as stacked bars (Tables 1 to 3 of the paper): ours, tie, baseline."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from evaluation.figures.base import Data, Drawing, NothingToDraw
from evaluation.figures.style import COLOURS, GREY, INK, new_figure
from evaluation.tables.paper import paper_tables
from evaluation.tables.paper_tables import OURS

PARTS = ("ours", "tie", "baseline")
FILLS = {"ours": COLOURS[0], "tie": "#d9d9de", "baseline": "#e69f00"}
TEXTS = {"ours": "white", "tie": INK, "baseline": INK}


def draw(data: Data, study: str | None = None, paper: bool = True) -> Drawing:
    """Draw our study (the one with the most votes), above it the printed values of the paper, if wanted."""
    votes = data.results.of_kind("preference")
    if study is not None and not votes.empty:
        votes = votes[votes["study"] == study]
    if votes.empty and not paper:
        raise NothingToDraw("There are no votes: `python -m evaluation.user_study` makes a study.")
    printed = {table.aspect: table for table in paper_tables().values() if table.aspect is not None}
    ours = pd.DataFrame()
    if not votes.empty:
        groups = [part for _, part in votes.groupby(["study", "method"])]
        ours = max(groups, key=lambda part: part["votes"].sum())
    records, shown = [], [aspect for aspect in printed if paper or aspect in set(ours.get("aspect", []))]
    bars: dict[str, list[tuple[str, dict[str, float], dict[str, float] | None]]] = {}
    for aspect in shown:
        bars[aspect] = []
        own = ours[ours["aspect"] == aspect].set_index("baseline") if len(ours) else pd.DataFrame()
        for name in dict.fromkeys([*(printed[aspect].rows if paper else ()), *own.index]):
            if paper and name in printed[aspect].rows:
                bars[aspect].append((f"{data.method(name)}, paper", printed[aspect].rows[name].values, None))
            if name in own.index:
                row = own.loc[name]
                values = {part: float(row[f"{part}_value"]) for part in PARTS}
                bounds = {end: float(row[f"ours_{end}"]) for end in ("low", "high")}
                bars[aspect].append((f"{data.method(name)}, our study", values, bounds))
        records += [{"aspect": aspect, "row": n, **v, **(b or {})} for n, v, b in bars[aspect]]
    most = max(len(rows) for rows in bars.values())
    figure = new_figure(10.2, 1.2 + 0.3 * most)
    for axes, aspect in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _bars(axes, bars[aspect], _name_of_ours(data, ours, paper))
        axes.set_title(printed[aspect].title.removeprefix("User study: "), fontsize=9.5, fontweight="bold")
        axes.set_xlabel("% of the votes")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
    return Drawing(figure, _caption(data, ours, paper), pd.DataFrame(records))


def _name_of_ours(data: Data, ours: pd.DataFrame, paper: bool) -> str:
    """The method that the baselines are compared with."""
    studied = str(ours["method"].iloc[0]) if len(ours) else OURS
    if studied == OURS or not paper:
        return data.method(studied)
    return f"{data.method(studied)} (paper: {data.method(OURS)})"


def _bars(axes: Axes, rows: list[tuple[str, dict[str, float], dict[str, float] | None]], ours: str) -> None:
    names = {"ours": f"{ours} preferred", "tie": "tie", "baseline": "baseline preferred"}
    for y, (_, values, bounds) in enumerate(rows):
        left = 0.0
        for part in PARTS:
            label = names[part] if y == 0 else None
            axes.barh(y, values[part], left=left, height=0.72, color=FILLS[part], label=label)
            if values[part] >= 9.0:
                axes.text(
                    left + values[part] / 2, y, f"{values[part]:.0f}", ha="center", va="center",
                    fontsize=7.5, color=TEXTS[part],
                )  # fmt: skip
            left += values[part]
        if bounds is not None:
            axes.plot([bounds["low"], bounds["high"]], [y + 0.42, y + 0.42], color=INK, linewidth=1.2)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.axvline(50, color=GREY, linewidth=0.6, linestyle=(0, (4, 3)))
    axes.tick_params(axis="y", length=0)


def _caption(data: Data, ours: pd.DataFrame, paper: bool) -> str:
    caption = "Which of two assets raters prefer, in % of the votes."
    if paper:
        caption += (
            " Paper: Tables 1 to 3 as printed (60 raters, 50 prompts; docs/evaluation.md lists the doubts about "  # noqa: E501
            "them; VSD's photorealism sums to 99 %)."
        )
    if len(ours):
        first = ours.iloc[0]
        caption += (
            f" Our study {first['study']}: {data.method(str(first['method']))} against each baseline, "
            f"{int(first['raters'])} raters, {int(ours['prompts'].max())} prompts, "
            f"{int(ours['votes'].max())} votes a bar at most, prior {first['prior']}; the line below a bar is "  # noqa: E501
            "the 95 % interval of the share that prefers ours (bootstrap over raters and prompts). "
            "Can't tell counts as tie."
        )
    return caption
