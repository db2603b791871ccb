"""What view phrases do to the Janus problem: each method with phrases, without, and with Perp-Neg.

Not in the paper. The runs are those of `experiment=janus` and `experiment=janus_perp_neg`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from evaluation.figures.base import Data, Drawing, NothingToDraw
from evaluation.figures.style import COLOURS, GREY, HAIR, new_figure
from evaluation.results.variants import flat_config
from evaluation.statistics.multiple import holm
from evaluation.statistics.paired import ALPHA, FEWEST, Difference, paired_difference, signed

WITH, WITHOUT, PERP_NEG = "view phrases", "no view phrases", "Perp-Neg"
_MARKS: Mapping[str, tuple[str, str]] = {
    WITH: ("o", COLOURS[0]), WITHOUT: ("s", COLOURS[1]), PERP_NEG: ("D", COLOURS[2]),
}  # fmt: skip
_HOW = (
    "`python -m trace_bench -m experiment=janus`, then `python -m evaluation.score`, makes runs with and "
    "without view phrases"
)
COLUMNS = (
    "method", "text", "prompts", "runs", "janus", "janus_prompts", "no_front", "difference", "low", "high",
    "both", "p", "fault", "fault_difference", "fault_low", "fault_high",
)  # fmt: skip


def draw(data: Data, prompt_set: str = "toy_janus", prior: str = "tiny") -> Drawing:
    """The figure of conf/figure/janus.yaml."""
    numbers = compared(data, prompt_set, prior)
    methods = list(dict.fromkeys(numbers["method"]))
    figure = new_figure(7.6, 1.3 + 0.42 * len(methods))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.15, 1.0])
    shown = set()
    for y, method in enumerate(methods):
        rows = numbers[numbers["method"] == method].set_index("text")
        known = rows["janus"].dropna()
        left.plot([known.min(), known.max()], [y, y], color=HAIR, linewidth=2.0, zorder=1)
        for text, row in rows.iterrows():
            mark, colour = _MARKS[str(text)]
            left.plot(
                row["janus"], y, mark, color=colour, markersize=6, zorder=2,
                label=None if text in shown else str(text),
            )  # fmt: skip
            shown.add(str(text))
            if text != WITH and row["both"]:
                offset = 0.0 if len(rows) == 2 else (-0.14 if text == WITHOUT else 0.14)
                right.plot([row["low"], row["high"]], [y + offset] * 2, color=colour, linewidth=1.4)
                face = colour if row["p"] <= ALPHA and row["both"] >= FEWEST else "white"
                right.plot(
                    row["difference"], y + offset, mark, color=colour, markerfacecolor=face, markersize=5
                )
        counts = " · ".join(f"{int(rows.loc[t, 'no_front'])}" for t in _MARKS if t in rows.index)
        left.annotate(
            counts, (1.0, y), (-2, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="center", fontsize=8.5, color=GREY,
        )  # fmt: skip
    left.annotate(
        "no front", (1.0, 1.0), (-2, 3), xycoords="axes fraction", textcoords="offset points", ha="right",
        fontsize=8.5, color=GREY,
    )  # fmt: skip
    left.set_yticks(range(len(methods)), [data.method(method) for method in methods])
    left.set_ylim(len(methods) - 0.5, -0.5)
    left.set_xlim(-0.02, max(0.6, 1.45 * float(numbers["janus"].max())))
    left.set_xlabel("Janus: share of the true front on the back")
    right.axvline(0.0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    right.set_xlabel("difference from view phrases (right: worse)")
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=3, fontsize=8.5)
    count = int(numbers["prompts"].max())
    most = int((-(-numbers["runs"] // numbers["prompts"])).max())
    seeds = "one seed" if most == 1 else f"{most} seeds"
    caption = (
        f"Janus number with and without view phrases in the prompt, and with Perp-Neg: prompt set "
        f"{prompt_set} ({count} objects with a front), prior {prior}, {seeds}, 3D Gaussians. Left: "
        "means over the assets that have a front; the grey counts are assets without one, in the order of "
        "the legend. Right: mean difference on the same prompts where both assets have a front, with 95 % "
        "interval; a filled mark is decided after Holm's correction over all differences shown. A method "
        "that loses its front has fewer such prompts; with a missing front counted as 1, over all prompts, "
        f"the differences without view phrases are {_faults(data, numbers)}."
    )
    return Drawing(figure, caption, numbers)


def compared(data: Data, prompt_set: str, prior: str) -> pd.DataFrame:
    """A row with `COLUMNS` per method and text; differences are to the same method with view phrases.

    `fault` is the Janus number with 1 for an asset without a front, so that none drops out. If the runs have
    the column `text`, their config.yaml files are not read.
    """
    runs = data.runs
    if runs.empty or "janus" not in runs:
        raise NothingToDraw(f"There are no runs of {prompt_set}: {_HOW}.")
    runs = runs[(runs["prompt_set"] == prompt_set) & (runs["prior"] == prior)]
    runs = runs[runs["ground_truth_judge"].notna() & (runs["representation"] == "gaussians")]
    if "text" not in runs:
        texts = [_text(flat_config(data.root / folder / "config.yaml")) for folder in runs["folder"]]
        runs = runs.assign(text=texts)
    runs = runs.assign(fault=runs["janus"].where(runs["no_front"] != 1, 1.0))
    found, gaps = [], []
    for method, own in runs.groupby("method", sort=False):
        values = own.pivot_table(
            index="prompt_id", columns="text", values="janus", aggfunc="mean", dropna=False
        )
        faults = own.pivot_table(index="prompt_id", columns="text", values="fault", aggfunc="mean")
        if WITH not in values or len(values.columns) < 2:
            continue
        for text in (name for name in _MARKS if name in values):
            part = own[own["text"] == text]
            gap = of_fault = Difference(np.nan, np.nan, np.nan, 0)
            if text != WITH:
                of_fault = paired_difference(faults[text].to_numpy(float), faults[WITH].to_numpy(float))
                gap = paired_difference(values[text].to_numpy(float), values[WITH].to_numpy(float))
            gaps.append(gap)
            found.append(
                [method, text, part["prompt_id"].nunique(), len(part),
                 part["janus"].mean(), int(part["janus"].notna().sum()),
                 int(part["no_front"].sum()), gap.mean, gap.low, gap.high, gap.prompts,
                 part["fault"].mean(), of_fault.mean, of_fault.low, of_fault.high]
            )  # fmt: skip
    if not found:
        raise NothingToDraw(
            f"No method has scored runs of {prompt_set} with and without view phrases: {_HOW}."
        )
    tested = [i for i, gap in enumerate(gaps) if gap.prompts]
    p = np.full(len(gaps), np.nan)
    p[tested] = holm([gaps[i].p for i in tested])
    order = {name: i for i, name in enumerate(data.order)}
    numbers = pd.DataFrame(
        [[*row[:11], value, *row[11:]] for row, value in zip(found, p, strict=True)], columns=list(COLUMNS)
    )
    return numbers.sort_values(
        "method", key=lambda names: names.map(lambda name: order.get(name, len(order))), kind="stable"
    ).reset_index(drop=True)


def _faults(data: Data, numbers: pd.DataFrame) -> str:
    """Each method's difference in `fault` without view phrases, with its interval."""
    rows = numbers[numbers["text"] == WITHOUT]
    words = []
    for row in rows.itertuples():
        span = (
            f" [{signed(row.fault_low, 2)}, {signed(row.fault_high, 2)}]"
            if np.isfinite(row.fault_low)
            else ""
        )
        words.append(f"{data.method(str(row.method))} {signed(row.fault_difference, 2)}{span}")
    return ", ".join(words) or "not known"


def _text(config: Mapping[str, str]) -> str:
    if config.get("method.perp_neg") == "True":
        return PERP_NEG
    return WITHOUT if config.get("view_phrases") == "False" else WITH
