"""What each score says of the true object and of assets that are wrong in one known way."""

from __future__ import annotations

import numpy as np
import pandas as pd

from evaluation.figures.base import Data, Drawing, NothingToDraw, judges_of
from evaluation.figures.style import COLOURS, GREY, HAIR, INK, new_figure
from evaluation.metrics.base import Quantity
from evaluation.results.controls import TRUTH, committed, committed_judges

HOW = "`python -m trace_bench -m experiment=controls` and `python -m evaluation.score` make them"


def draw(data: Data, quantities: list[str] | None = None) -> Drawing:
    """Draw the control runs of the output root or, if there are none, those that the package ships.

    quantities: of the metrics; null: the first four of each metric that have a better side.
    """
    runs, shipped = data.results.controls, False
    if runs.empty:
        runs, shipped = committed(), True
    if runs.empty:
        raise NothingToDraw(f"There are no controls: {HOW}.")
    known = {q.name: q for metric in data.metrics.values() for q in metric.quantities}
    names = quantities or [q.name for m in data.metrics.values() for q in _first(m.quantities)]
    shown = [known[n] for n in names if n in known and n in runs and runs[n].notna().any()]
    if not shown:
        raise NothingToDraw(f"The controls have no score: {HOW}.")
    kinds = list(dict.fromkeys(runs["control"].astype(str)))
    right = runs.groupby("control")["right"].first()
    place = {kind: i for i, kind in enumerate(kinds)}  # a list that is being sorted looks empty
    kinds.sort(key=lambda kind: (kind != TRUTH, right[kind] != True, place[kind]))  # noqa: E712
    display = runs.drop_duplicates("control").set_index("control")["display_name"]
    figure = new_figure(1.7 + 1.75 * len(shown), 0.9 + 0.235 * len(kinds))
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    records = []
    for axes, quantity in zip(panels, shown, strict=True):
        truth = float(runs.loc[runs["control"] == TRUTH, quantity.name].mean())
        axes.axvline(truth, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        for y, kind in enumerate(kinds):
            own = runs.loc[runs["control"] == kind]
            values = own.groupby("prompt")[quantity.name].mean().dropna().to_numpy(float)
            axes.axhline(y, color=HAIR, linewidth=0.5, zorder=0)
            if not len(values):
                continue
            mean, std = float(values.mean()), float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
            fooled = right[kind] != True and _at_least(mean, truth, quantity)  # noqa: E712
            colour = INK if right[kind] == True else COLOURS[1] if fooled else COLOURS[0]  # noqa: E712
            if len(values) > 1:
                axes.plot([mean - std, mean + std], [y, y], color=colour, linewidth=1.3)
            axes.plot([mean], [y], "D" if fooled else "o", color=colour, markersize=4.5)
            records.append(
                {"control": kind, "right": bool(right[kind] == True), "quantity": quantity.name}  # noqa: E712
                | {"mean": mean, "std": std, "prompts": len(values), "fooled": bool(fooled)}
            )
        axes.set_title(quantity.label, fontsize=9)
        axes.set_xlabel("higher is better" if quantity.higher_is_better else "lower is better", fontsize=7.5)
        axes.locator_params(axis="x", nbins=3)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(kinds)), [str(display[kind]) for kind in kinds], fontsize=8.5)
    panels[0].set_ylim(len(kinds) - 0.4, -0.6)
    judges = committed_judges() if shipped else judges_of(data, runs, [q.name for q in shown])
    source = "scores that the package ships" if shipped else f"{len(runs)} runs of this output root"
    caption = (
        "Scores of true objects (black) and of assets that are wrong in one known way: means over prompts, "
        "lines ± one standard deviation over prompts; the dashed line is the truth. An orange diamond is a "
        f"wrong asset that scores at least as well as the truth, so it fools this number. n: "
        f"{runs['prompt'].nunique()} prompts, one seed, no prior; {source}."
        + (f" Judge: {'; '.join(judges)}." if judges else "")
    )
    return Drawing(figure, caption, pd.DataFrame(records))


def _first(quantities: tuple[Quantity, ...]) -> list[Quantity]:
    return [q for q in quantities if q.higher_is_better is not None and q.kind == "mean" and not q.partial][
        :4
    ]


def _at_least(mean: float, truth: float, quantity: Quantity) -> bool:
    """Whether a printed mean is as good as the truth's."""
    a, b = round(mean, quantity.decimals), round(truth, quantity.decimals)
    return a >= b if quantity.higher_is_better else a <= b
