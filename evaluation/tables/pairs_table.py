"""The table of pairs: every two methods on every metric, and which differences are decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evaluation.metrics.base import Metric, Quantity
from evaluation.results.aggregate import Table, method_table, one_judge, optimised_note
from evaluation.results.collect import Results
from evaluation.results.pairs import Pair, all_pairs
from evaluation.statistics.multiple import can_decide, prompts_to_decide_any
from evaluation.statistics.paired import ALPHA, FEWEST, smallest_p
from evaluation.tables.formats import Entry, Grid, Heading
from evaluation.tables.method_tables import Names, chosen_panels, shown_quantities, what

MANY = 1000  # a larger number of prompts is not worth printing


def pairs_grids(
    results: Results, metrics: Mapping[str, Metric], names: Names, order: Sequence[str], over: str
) -> Iterator[Grid]:
    """One table per prompt set and prior."""
    for found in chosen_panels(results, order, over):
        panel, notes = one_judge(found, metrics)
        table = method_table(panel, shown_quantities(panel, metrics), names)
        notes += optimised_note([cell for row in table.rows for cell in row.cells])
        pairs = all_pairs(table)
        caption = (
            f"{what(panel)}: differences of all pairs of rows on the prompts that both have, with their 95 % "
            "intervals; p by Holm's correction over the pairs of a metric."
        )
        yield pairs_grid(f"pairs-{panel.slug}", caption, table, pairs, notes)


def pairs_grid(name: str, caption: str, table: Table, pairs: Sequence[Pair], notes: Sequence[str]) -> Grid:
    heads = ["Metric", "A", "B", "A − B", "Prompts", "p", "p (Holm)", "Decided", "Prompts to decide"]
    head = [Heading(text) for text in heads]
    labels = _labels(table)
    body, records = [], []
    for pair in pairs:
        a, b = labels[id(pair.first)], labels[id(pair.second)]
        quantity, found = pair.cell.quantity, pair.difference
        better = _better(pair)
        decided = {0: "no", 1: a, -1: b}[better]
        possible = can_decide(found.prompts, pair.comparisons)
        body.append([
            Entry(quantity.label), Entry(a), Entry(b),
            Entry(found.text(2 if quantity.kind == "count" else quantity.decimals), 1 if better else 0),
            Entry(str(found.prompts)), Entry(p_text(found.p)), Entry(p_text(pair.adjusted)),
            Entry(decided if possible or better else "cannot be"),
            Entry("—" if better else _needed(pair)),
        ])  # fmt: skip
        records.append({
            "metric": quantity.name, "a": a, "b": b,
            "difference": found.mean, "low": found.low, "high": found.high,
            "prompts": found.prompts, "p": found.p, "p_holm": pair.adjusted, "comparisons": pair.comparisons,
            "decided": bool(better), "better": decided if better else None, "can_be_decided": possible,
            "prompts_to_decide": None if better else pair.needed or None,
        })  # fmt: skip
    return Grid(name, caption, head, body, 3, records, [*_summary(pairs), *_explained(pairs), *notes])


def p_text(p: float) -> str:
    """.0078, or < .0001."""
    return "< .0001" if p < 1e-4 else f"{p:.4f}".lstrip("0") if p < 1 else "1"


def _better(pair: Pair) -> int:
    """1 if A is decidedly better, -1 if B is, else 0."""
    if pair.difference.prompts < FEWEST or not pair.adjusted <= ALPHA:
        return 0
    return 1 if (pair.difference.mean > 0) == bool(pair.cell.quantity.higher_is_better) else -1


def _needed(pair: Pair) -> str:
    if not pair.needed:
        return "—"
    return f"{pair.needed}" if pair.needed <= MANY else f"> {MANY:,}"


def _labels(table: Table) -> dict[int, str]:
    """A name for each row: its method, and what else tells rows apart."""
    several = [c for c in table.label_columns if len({row.labels[c] for row in table.rows}) > 1]
    columns = ["method", *(c for c in several if c != "method")]
    return {id(row): " ".join(row.labels[c] for c in columns) for row in table.rows}


def _summary(pairs: Sequence[Pair]) -> list[str]:
    """How many pairs of each metric are decided."""
    counts: dict[Quantity, list[int]] = {}
    for pair in pairs:
        count = counts.setdefault(pair.cell.quantity, [0, 0])
        count[0] += bool(_better(pair))
        count[1] += 1
    words = [f"{quantity.label} {decided} of {every}" for quantity, (decided, every) in counts.items()]
    return [f"Decided: {', '.join(words)}."] if words else []


def _explained(pairs: Sequence[Pair]) -> list[str]:
    notes = []
    for prompts, comparisons in sorted({(p.difference.prompts, p.comparisons) for p in pairs}):
        if can_decide(prompts, comparisons):
            continue
        least = prompts_to_decide_any(comparisons)
        if prompts < FEWEST:
            why = f"fewer than {FEWEST} prompts decide nothing"
        else:
            why = (
                f"{prompts} prompts cannot decide any of {comparisons} pairs: their smallest p is "
                f"{p_text(smallest_p(prompts))}, and Holm's correction asks the smallest to be at most "
                f"{p_text(ALPHA / comparisons)}"
            )
        fewer = max((m for m in range(2, 20) if can_decide(prompts, m * (m - 1) // 2)), default=0)
        ways = f"use {least} prompts or more"
        ways += f", or compare at most {fewer} methods with tables.methods=[...]" if fewer else ""
        notes.append(f"{why[0].upper()}{why[1:]}; {ways}.")
    notes = list(dict.fromkeys(notes))
    if any(pair.needed for pair in pairs):
        notes.append(
            "Prompts to decide: with so many, the pair would be decided with a chance of 80 % if the true "
            "difference were the measured one; for planning, not a result."
        )
    return notes
