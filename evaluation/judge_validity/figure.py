"""Agreement of each judge with the truth, by criterion, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

import pandas as pd

from evaluation.figures.base import Data, Drawing, NothingToDraw
from evaluation.figures.style import COLOURS, GREY, HAIR, new_figure
from evaluation.gpteval3d.criteria import CRITERIA, LABELS
from evaluation.gpteval3d.truth_judge import TruthJudge
from evaluation.judge_validity.agreement import LEAST_PROMPTS, Validity, validity
from evaluation.judge_validity.judgements import find_judged, nothing
from trace_bench.run_folder.index import read_index


def draw(data: Data, tie_margin: float = 0.005) -> Drawing:
    """The figure of conf/figure/judge_validity.yaml."""
    judge = TruthJudge(data.metrics[TruthJudge.metric], tie_margin)
    runs = [run for run in read_index(data.root).runs.values() if run.manifest.status == "done"]
    rows = [row for judged in find_judged(data.root, runs, judge) for row in validity(judged)]
    if not rows:
        raise NothingToDraw(str(nothing(data.root)))
    return drawing(rows)


def drawing(rows: Sequence[Validity]) -> Drawing:
    """One group of points per criterion, one colour per judge."""
    judges = list(dict.fromkeys((row.judge, row.about) for row in rows))
    criteria = [name for name in CRITERIA if any(row.criterion == name for row in rows)]
    figure = new_figure(7.2, 0.9 + 0.34 * len(rows) + 0.25 * len(criteria))
    axes = figure.subplots()
    axes.axvline(50, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    y, ticks, named = 0.0, [], set()
    for criterion in criteria:
        own = [row for row in rows if row.criterion == criterion]
        ticks.append(y + 0.5 * (len(own) - 1))
        for row in own:
            key = row.judge, row.about
            colour = COLOURS[judges.index(key) % len(COLOURS)]
            share = row.agreement
            if not isnan(share.low):
                axes.plot([100 * share.low, 100 * share.high], [y, y], color=colour, linewidth=1.4)
            label = None if key in named else f"{row.judge}, {row.about}"
            named.add(key)
            axes.plot([100 * share.value], [y], "o", color=colour, label=label)
            y += 1.0
        if criterion != criteria[-1]:
            axes.axhline(y - 0.1, color=HAIR, linewidth=0.6)
        y += 0.8
    axes.set_yticks(ticks, [LABELS[name] for name in criteria])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(y - 0.1, -0.9)
    axes.set_xlim(0, 100)
    axes.set_xlabel("agreement with the truth, % (50 % is chance)")
    figure.legend(loc="outside lower left", fontsize=8.5)
    counts = "; ".join(
        f"{judge}, {about}: {max(row.verdicts for row in own)} verdicts a criterion at most, "
        f"{max(row.prompts for row in own)} prompts{f' ({own[0].assets})' if own[0].assets else ''}"
        for judge, about in judges
        for own in [[row for row in rows if (row.judge, row.about) == (judge, about)]]
    )
    caption = (
        "Agreement of judges with the known true object, by criterion: share of the verdicts with a winner "
        "that name the truth's winner, where the truth has one. Lines are 95 % intervals over prompts; a "
        f"point without a line has fewer than {LEAST_PROMPTS} prompts. n: {counts}."
    )
    return Drawing(figure, caption, pd.DataFrame([record(row) for row in rows]))


def record(row: Validity) -> dict[str, object]:
    """The row at full precision."""
    return {
        "judge": row.judge, "about": row.about, "criterion": row.criterion, "verdicts": row.verdicts,
        "prompts": row.prompts, "agreement": row.agreement.value, "agreement_low": row.agreement.low,
        "agreement_high": row.agreement.high, "draws": row.draws, "left": row.left.value,
        "left_low": row.left.low, "left_high": row.left.high, "consistency": row.consistency,
        "left_out": row.left_out,
    }  # fmt: skip
