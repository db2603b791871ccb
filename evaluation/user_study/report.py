"""Prints preferences.json as Tables 1 to 3 of the paper, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.results.markdown import plain
from evaluation.results.names import display_names
from evaluation.user_study.aspects import ASPECTS
from trace_bench.system.text import one_line


def markdown(result: Mapping[str, Any]) -> str:
    """One table per aspect."""
    names = display_names()["method"]
    ours = names.get(result["ours"], result["ours"])
    head = ["Baseline", f"{plain(ours)} preferred", "Tie", "Baseline preferred", "Votes"]
    lines = []
    for aspect, agreed in zip(ASPECTS, result["agreement"], strict=True):
        alpha = agreed["alpha"]["value"]
        said = "agreement undefined"
        if alpha is not None:
            said = f"Krippendorff's alpha {round(alpha, 2) + 0.0:.2f}"  # + 0.0: never -0.00
        body = [
            [
                names.get(row["baseline"], row["baseline"]),
                *(_cell(row["percent"][name]) for name in ("ours", "tie", "baseline")),
                str(row["votes"]),
            ]
            for row in result["rows"]
            if row["aspect"] == aspect.id
        ]
        lines += [f"Table {aspect.table}. User study: {aspect.title} ({said})", "", *_grid(head, body), ""]
    return "\n".join(lines)


def _cell(estimate: Mapping[str, float | None]) -> str:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return "—"
    return f"{value:.2f}%" if low is None or high is None else f"{value:.2f}% [{low:.1f}, {high:.1f}]"


def _grid(head: list[str], body: list[list[str]]) -> list[str]:
    """Aligned Markdown; numbers right-aligned."""
    body = [[plain(row[0]), *row[1:]] for row in body]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for first, *numbers in [head, rule, *body]:
        cells = [first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(numbers, widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def summary(result: Mapping[str, Any]) -> list[str]:
    """The lines below the tables."""
    raters, prompts, left = result["raters"], result["prompts"], result["left"]
    lines = [
        f"{raters['used']} raters of {raters['answered']} who answered ({raters['assigned']} codes).",
        f"{prompts['used']} prompts of {prompts['planned']}.",
        f"Brackets: {100 * result['interval']['level']:.0f} % {result['interval']['method']}.",
    ]
    if left["votes"]:
        lines += [
            f"Can't tell counts as Tie: {_cell(result['unknown']['percent'])} of all votes.",
            f"The left side won {_cell(left['percent'])} of the decided votes.",
        ]
    if raters["dropped"]:
        lines += [result["attention_rule"]]
    return lines + [f"Dropped: {one_line(entry['rater'])}, {entry['reason']}." for entry in raters["dropped"]]
