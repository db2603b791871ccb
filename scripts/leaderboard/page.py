"""The blocks of docs/leaderboard.md and README.md, from the committed results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isnan

import pandas as pd

from evaluation.metrics.base import Metric
from evaluation.results.aggregate import Table, method_table, one_judge, optimised_note, order_methods, panels
from evaluation.results.controls import Shown
from evaluation.results.names import display_names
from evaluation.results.pairs import Pair, all_pairs
from evaluation.statistics.paired import ALPHA, signed
from evaluation.tables import formats
from evaluation.tables.method_tables import make_tables
from evaluation.tables.pairs_table import p_text
from evaluation.tables.paper import paper_tables
from scripts.leaderboard.profiles import profiles
from scripts.leaderboard.ranking import FIRST, best_first, rank_agreement
from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import MAIN, STRATA
from scripts.results.document import paragraph

_README = (FIRST, "soft_iou", "colour_error", "janus", "minutes", "minutes_shared")
_COMPARED = (*_README, "chamfer", "clip_score", "unet_items")
Metrics = Mapping[str, Metric]


def _table(board: Board, section: str, metrics: Metrics, controls: Shown, over: str = "auto") -> Table:
    results = board.results(section)
    tables = make_tables(
        results,
        metrics,
        display_names(results.frame),
        best_first(board, section),
        over=over,
        controls=controls,
    )
    return next(table for table in tables if table.name.startswith("methods-"))


def _short(table: Table, names: tuple[str, ...]) -> str:
    """Some columns of a table, with the note on numbers that a method maximises but no others."""
    shown = only(table, names)
    notes = optimised_note([cell for row in shown.rows for cell in row.cells])
    return formats.markdown(replace(formats.grid(shown), caption="", notes=notes)).strip("\n")


def standings(board: Board, metrics: Metrics) -> str:
    """Every method with its own budget, the truth and every wrong asset."""
    return formats.markdown(formats.grid(_table(board, MAIN, metrics, "all"))).strip("\n")


def readme(board: Board, metrics: Metrics) -> str:
    """The short table of README.md."""
    return _short(_table(board, MAIN, metrics, "best"), _README)


def only(table: Table, names: tuple[str, ...]) -> Table:
    """The table with some of its columns."""
    places = [i for i, quantity in enumerate(table.quantities) if quantity.name in names]
    rows = [replace(row, cells=[row.cells[i] for i in places]) for row in table.rows]
    return replace(table, quantities=[table.quantities[i] for i in places], rows=rows)


def strata(board: Board, _metrics: Metrics) -> str:
    """Match of each method by the kind of object."""
    frame = board.sections[MAIN]
    names = display_names(frame)["method"]
    numbers = pd.to_numeric(frame["prompt_id"])
    lines = [f"| Method | {' | '.join(STRATA)} |", f"|---|{'---:|' * len(STRATA)}"]
    for method in best_first(board):
        own = frame["method"] == method
        cells = [f"{frame.loc[own & numbers.isin(ids), FIRST].mean():.3f}" for ids in STRATA.values()]
        lines.append(f"| {names.get(method, method)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pairs(board: Board, metrics: Metrics) -> str:
    """Every two methods in Match: the row's lead over the column, or the prompts that would decide it."""
    table = _first_only(board, metrics)
    found = {(str(p.first.key["method"]), str(p.second.key["method"])): p for p in all_pairs(table)}
    methods = [str(row.key["method"]) for row in table.rows]
    names = display_names(board.sections[MAIN])["method"]
    heads = [str(i + 1) for i in range(1, len(methods))]
    lines = [f"| | Method | {' | '.join(heads)} |", f"|---:|---|{'---:|' * len(heads)}"]
    for i, method in enumerate(methods[:-1]):
        cells = ["" if j <= i else _pair(found[method, other]) for j, other in enumerate(methods) if j]
        lines.append(f"| {i + 1} | {names.get(method, method)} | {' | '.join(cells)} |")
    lines.append(
        f"| {len(methods)} | {names.get(methods[-1], methods[-1])} | {' | '.join([''] * len(heads))} |"
    )
    decided = sum(pair.adjusted <= ALPHA for pair in found.values())
    return (
        "\n".join(lines)
        + "\n\n"
        + paragraph(
            f"{decided} of {len(found)} pairs are decided (bold: the row's lead over the column of that "
            "number; p by Holm's correction over all pairs). Undecided pairs show the lead and, in brackets, "
            "how many prompts would decide it with a chance of 80 % if the true difference were the measured "
            "one."
        )
    )


def _pair(pair: Pair) -> str:
    lead = signed(pair.difference.mean, 3)
    if pair.adjusted <= ALPHA:
        return f"**{lead}**"
    needed = f"{pair.needed:,}" if 0 < pair.needed <= 9999 else "> 9,999"
    return f"{lead} ({needed})"


def _first_only(board: Board, metrics: Metrics) -> Table:
    """The main section's methods with the one number `FIRST`, best first."""
    (panel,) = panels(order_methods(board.sections[MAIN], best_first(board)))
    panel, _ = one_judge(panel, metrics)
    (quantity,) = (q for metric in metrics.values() for q in metric.quantities if q.name == FIRST)
    return method_table(panel, [quantity], display_names(panel.frame))


def equal_work(board: Board, metrics: Metrics) -> str:
    return _short(_table(board, "equal_work", metrics, "none", "common_prompts"), _COMPARED)


def nerf(board: Board, metrics: Metrics) -> str:
    return _short(_table(board, "nerf", metrics, "none", "common_prompts"), _COMPARED)


def judges(board: Board, _metrics: Metrics) -> str:
    """How often each judge without an own truth names the better asset."""
    lines = ["| Judge | Criterion | Verdicts | Agreement with the truth |", "|---|---|---:|---:|"]
    for row in board.validity:
        low, high = row.get("agreement_low"), row.get("agreement_high")
        interval = "" if low is None or high is None else f" [{100 * low:.0f}, {100 * high:.0f}]"
        share = "—" if row["agreement"] is None else f"{100 * row['agreement']:.0f} %{interval}"
        lines.append(f"| {row['judge']} | {row['criterion']} | {row['verdicts']:,} | {share} |")
    return "\n".join(lines)


def paper(board: Board, _metrics: Metrics) -> str:
    """Rank correlation of the methods' Match with each printed column of Tables 4 to 8."""
    lines = [
        "| Table | Column | Methods | Kendall's τ | p | Smallest possible p |",
        "|---|---|---:|---:|---:|---:|",
    ]
    printed = paper_tables()
    for number in (4, 5, 6, 7, 8):
        table = printed[number]
        frame = board.sections.get(MAIN if table.representation == "gaussians" else "nerf", pd.DataFrame())
        ours = {} if frame.empty else frame.groupby("method")[FIRST].mean().to_dict()
        rows = dict(table.rows)
        if number == 5:  # its comparison with TraCe is with the row of Table 4, which has the same columns
            rows["trace"] = printed[4].rows["trace"]
        for column, title in table.columns.items():
            found = rank_agreement(ours, {name: row.values[column] for name, row in rows.items()})
            cells = ["—"] * 3 if isnan(found.tau) else [
                signed(found.tau, 2), p_text(found.p), p_text(found.smallest_p)
            ]  # fmt: skip
            lines.append(f"| {number} | {title} | {len(found.methods)} | {' | '.join(cells)} |")
    return "\n".join(lines)


BLOCKS: Mapping[tuple[str, str], Callable[[Board, Metrics], str]] = {
    ("docs/leaderboard.md", "leaderboard"): standings,
    ("docs/leaderboard.md", "leaderboard-strata"): strata,
    ("docs/leaderboard.md", "leaderboard-pairs"): pairs,
    ("docs/leaderboard.md", "leaderboard-profiles"): profiles,
    ("docs/leaderboard.md", "leaderboard-equal-work"): equal_work,
    ("docs/leaderboard.md", "leaderboard-nerf"): nerf,
    ("docs/leaderboard.md", "leaderboard-judges"): judges,
    ("docs/leaderboard.md", "leaderboard-paper"): paper,
    ("README.md", "leaderboard"): readme,
}
