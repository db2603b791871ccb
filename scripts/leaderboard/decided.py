"""Which differences between methods are decided, and how many prompts would decide the others."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.results.aggregate import Table, method_table, one_judge, order_methods, panels
from evaluation.results.names import display_names
from evaluation.results.pairs import Pair, all_pairs
from evaluation.statistics.paired import ALPHA, signed
from evaluation.statistics.power import MOST
from scripts.leaderboard.ranking import FIRST, best_first
from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import MAIN
from scripts.leaderboard.tables import Metrics
from scripts.results.document import paragraph

#: The numbers whose decided pairs are counted; the first has a table of its own.
NUMBERS = (FIRST, "soft_iou", "colour_error", "janus")


def pairs(board: Board, metrics: Metrics) -> str:
    """Every two methods in Match, and how many pairs each of `NUMBERS` decides."""
    table = _table(board, metrics)
    every = all_pairs(table)
    found = {_methods(pair): pair for pair in every if pair.cell.quantity.name == FIRST}
    methods = [str(row.key["method"]) for row in table.rows]
    names = display_names(board.sections[MAIN])["method"]
    heads = [str(i + 1) for i in range(1, len(methods))]
    lines = [f"| | Method | {' | '.join(heads)} |", f"|---:|---|{'---:|' * len(heads)}"]
    for i, method in enumerate(methods):
        cells = ["" if j <= i else _cell(found[method, other]) for j, other in enumerate(methods) if j]
        lines.append(f"| {i + 1} | {names.get(method, method)} | {' | '.join(cells)} |")
    seeds = board.sections[MAIN]["seed"].nunique()
    return "\n\n".join([
        "\n".join(lines),
        paragraph(
            "A cell is the row's lead over the method with the column's number. Bold: decided after Holm's "
            f"correction over all {len(found)} pairs. In brackets: how many prompts with {seeds} "
            f"seed{'s' if seeds != 1 else ''} each would decide it with a chance of 80 %, at Holm's "
            "strictest threshold, if the true difference were the measured one."
        ),
        paragraph(f"Decided pairs: {_counts(every)}."),
    ])  # fmt: skip


def decided_in_match(board: Board, metrics: Metrics, methods: Sequence[str]) -> tuple[int, int]:
    """(decided pairs, pairs) of some methods in Match, by the correction over all pairs of the table."""
    own = [p for p in all_pairs(_table(board, metrics, (FIRST,))) if set(_methods(p)) <= set(methods)]
    return sum(_is_decided(pair) for pair in own), len(own)


def _table(board: Board, metrics: Metrics, names: Sequence[str] = NUMBERS) -> Table:
    """The main section's methods, best first, with some numbers."""
    (panel,) = panels(order_methods(board.sections[MAIN], best_first(board)))
    panel, _ = one_judge(panel, metrics)
    found = {q.name: q for metric in metrics.values() for q in metric.quantities}
    return method_table(panel, [found[name] for name in names], display_names(panel.frame))


def _methods(pair: Pair) -> tuple[str, str]:
    return str(pair.first.key["method"]), str(pair.second.key["method"])


def _is_decided(pair: Pair) -> bool:
    return pair.adjusted <= ALPHA


def _cell(pair: Pair) -> str:
    lead = signed(pair.difference.mean, 3)
    if _is_decided(pair):
        return f"**{lead}**"
    if not pair.needed:
        return lead
    return f"{lead} ({'≥ ' if pair.needed >= MOST else ''}{pair.needed:,})"


def _counts(every: Sequence[Pair]) -> str:
    """Of each number: how many of its pairs are decided, and over how many prompts."""
    words = []
    for name in NUMBERS:
        own = [pair for pair in every if pair.cell.quantity.name == name]
        if own:
            prompts = sorted({pair.difference.prompts for pair in own})
            span = f"{prompts[0]}" if len(prompts) == 1 else f"{prompts[0]} to {prompts[-1]}"
            decided = sum(map(_is_decided, own))
            words.append(f"{own[0].cell.quantity.label} {decided} of {len(own)} ({span} prompts)")
    return ", ".join(words)
