"""Elo of a tournament as a forest plot: one panel per criterion, points with 95 % intervals."""

from __future__ import annotations

import pandas as pd

from evaluation.figures.base import Data, Drawing, NothingToDraw
from evaluation.figures.style import COLOURS, GREY, HAIR, new_figure
from evaluation.gpteval3d.criteria import CRITERIA, LABELS
from evaluation.results.aggregate import order_methods


def draw(
    data: Data, judge: str | None = None, prompt_set: str | None = None, prior: str | None = None
) -> Drawing:
    """Draw the tournament with the most comparisons; `judge` is a folder name below gpteval3d/."""
    found = data.results.of_kind("elo")
    for column, wanted in (("judge", judge), ("prompt_set", prompt_set), ("prior", prior)):
        if wanted is not None and not found.empty:
            found = found[found[column] == wanted]
    if not found.empty:
        found = found[found["elo"].notna()]
    if found.empty:
        raise NothingToDraw("There is no Elo: `python -m evaluation.gpteval3d judge=clip` makes it.")
    groups = [part for _, part in found.groupby(["judge", "tournament", "mode"])]
    rows = max(groups, key=lambda part: part["comparisons"].sum())
    criteria = [name for name in CRITERIA if name in set(rows["criterion"])]
    ordered = order_methods(rows, data.order).sort_values("method", kind="stable")
    names = list(dict.fromkeys(ordered["contestant"]))[::-1]
    own = set(rows.loc[rows["maximises"], "contestant"]) if "maximises" in rows else set()
    names.sort(key=lambda name: name not in own)  # at the bottom, without a rank
    columns = min(3, len(criteria))
    lines = -(-len(criteria) // columns)
    figure = new_figure(1.6 + 2.5 * columns, lines * (0.75 + 0.24 * len(names)))
    panels = figure.subplots(lines, columns, sharey=True, sharex=True, squeeze=False).ravel()
    for axes, criterion in zip(panels, criteria, strict=False):
        shown = rows[rows["criterion"] == criterion].drop_duplicates("contestant").set_index("contestant")
        for y, name in enumerate(names):
            axes.axhline(y, color=HAIR, linewidth=0.5, zorder=0)
            if name not in shown.index:
                continue
            row = shown.loc[name]
            low, high = row["elo_low"], row["elo_high"]
            if pd.isna(low) != pd.isna(high) and name not in own:  # it never lost, or never won
                bound, arrow = (high, "<") if pd.isna(low) else (low, ">")
                axes.plot([bound], [y], arrow, color=COLOURS[0], markersize=5)
                continue
            held = bool(pd.isna(low) or low == high) or name in own
            colour = GREY if held else COLOURS[0]
            if not held:
                axes.plot([row["elo_low"], row["elo_high"]], [y, y], color=colour, linewidth=1.5)
            axes.plot([row["elo"]], [y], "D" if held else "o", color=colour, markersize=4.5)
        axes.set_title(LABELS[criterion], fontsize=9)
        axes.tick_params(axis="y", length=0)
    for axes in panels[len(criteria) :]:
        axes.set_axis_off()
    for axes in panels[: len(criteria)][-columns:]:
        axes.set_xlabel("Elo")
        axes.locator_params(axis="x", nbins=4)
    methods = rows.drop_duplicates("contestant").set_index("contestant")["method"]
    panels[0].set_yticks(range(len(names)), [_label(data, name, str(methods[name])) for name in names])
    panels[0].set_ylim(-0.7, len(names) - 0.3)
    kept = [
        "judge_name",
        "tournament",
        "contestant",
        "criterion",
        "elo",
        "elo_low",
        "elo_high",
        "comparisons",
    ]
    notes = [note for note in str(rows.iloc[0]["notes"]).split("\n") if note]
    return Drawing(figure, _caption(rows), rows[kept], notes)


def _caption(rows: pd.DataFrame) -> str:
    """What the tournament's own caption says, and what is drawn."""
    first = rows.iloc[0]
    state = "" if first["complete"] else " The tournament is not complete."
    of = [f"{int(first['prompts'])} prompts"]
    of += [] if pd.isna(first["seed"]) else [f"seed {int(first['seed'])} of each method"]
    of += [] if "prior " in str(first["caption"]) else [f"prior {first['prior']}"]
    of += [f"{int(rows['comparisons'].max())} comparisons a contestant and criterion at most"]
    bounds = rows["elo_low"].isna() != rows["elo_high"].isna()
    arrows = " An arrow is the bound of a contestant that never lost or never won." if bounds.any() else ""
    drawn = "Lines are these intervals" if "interval" in str(first["caption"]) else "Lines are 95 % intervals"
    return (
        f"{first['caption']} {drawn}; a grey diamond is held fixed, has no interval, or its method "
        f"maximises what the judge compares.{arrows} n: {', '.join(of)}.{state}"
    )


def _label(data: Data, contestant: str, method: str) -> str:
    """The display name of the method where the contestant is just that method."""
    return data.method(method) if contestant == method else contestant
