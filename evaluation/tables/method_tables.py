"""Our own tables: methods over all prompts, results per prompt, and quality against cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from evaluation.metrics.base import Metric, Quantity
from evaluation.results.aggregate import (
    COST,
    MORE_COST,
    ONCE,
    SPEED,
    Cell,
    Panel,
    Row,
    Table,
    choose_prompts,
    costs,
    method_table,
    on_same_prompts,
    one_judge,
    optimised_note,
    order_methods,
    panels,
    prompt_table,
)
from evaluation.results.collect import Results
from evaluation.results.controls import Shown, controls_of, with_controls
from evaluation.results.missing import notes_on_scores
from evaluation.results.pareto import on_front
from evaluation.statistics.paired import FEWEST, paired_difference
from trace_bench.system.errors import TraceBenchError

Names = Mapping[str, Mapping[str, str]]
KINDS = ("methods", "prompts", "cost")


def make_tables(
    results: Results,
    metrics: Mapping[str, Metric],
    names: Names,
    order: Sequence[str],
    over: str = "auto",
    controls: Shown = "none",
    kinds: Collection[str] = KINDS,
) -> list[Table]:
    """Tables of methods, prompts and costs for each prompt set and prior.

    Args:
        over: which prompts, see `choose_prompts`.
        controls: which of them have a row below the methods.
        kinds: which tables, of `KINDS`.
    """
    tables = []
    for found in chosen_panels(results, order, over):
        panel, notes = one_judge(found, metrics)
        quantities = [*shown_quantities(panel, metrics), *costs(panel.frame)]
        if "methods" in kinds:
            notes += _judge_notes(panel, metrics, results)
            notes += [f"{quantity.label}: {quantity.note}." for quantity in quantities]
            notes += _declared_notes(panel)
            methods = method_table(panel, quantities, names)
            shown = with_controls(methods, panel, controls_of(panel, results, metrics), controls)
            notes = [*shown.notes, *_own(shown), *_marks(methods), *_partial(shown), *notes]
            tables.append(replace(shown, caption=_caption(panel, True), notes=notes))
        if "prompts" in kinds:
            by_prompt = prompt_table(panel, quantities, names)
            tables.append(replace(by_prompt, caption=_caption(panel, False), notes=_own(by_prompt)))
        if "cost" in kinds:
            tables.append(_cost_table(panel, metrics, names, results))
    return tables


def chosen_panels(results: Results, order: Sequence[str], over: str) -> list[Panel]:
    """The panels on the prompts that the tables are over, the largest first.

    Raises: TraceBenchError if rows share no prompt but must.
    """
    if results.frame.empty:
        return []
    found = [choose_prompts(panel, over) for panel in panels(order_methods(results.frame, order))]
    for panel in found:
        if panel.frame.empty:
            raise TraceBenchError(
                f"tables.over=common_prompts: no prompt of {panel.title} has an asset of every row; leave "
                "rows out with tables.methods=[...], or use tables.over=all_prompts."
            )
    return sorted(found, key=lambda panel: -len(panel.frame))


def shown_quantities(panel: Panel, metrics: Mapping[str, Metric]) -> list[Quantity]:
    """The quantities of all metrics that scored a run in this panel."""
    chosen = []
    for name, metric in metrics.items():
        if panel.frame[f"{name}_judge"].notna().any():
            chosen += [quantity for quantity in metric.quantities if _means_something(quantity, panel)]
    return chosen


def _declared_notes(panel: Panel) -> list[str]:
    """Notes on external assets, whose minutes are declared rather than measured."""
    if "source" not in panel.frame:
        return []
    found = panel.frame.dropna(subset=["source"])[["display_name", "source"]].drop_duplicates()
    return [f"{name}: external asset; minutes as declared for {source}." for name, source in found.to_numpy()]


def _means_something(quantity: Quantity, panel: Panel) -> bool:
    """Whether the panel has values of a quantity: a CLIP without captions has no `recognised`, and partial
    quantities apply only to some objects.
    """
    if quantity.partial:
        return bool((panel.frame[f"{quantity.name}_applies"] != 0).any())
    return quantity.kind != "count" or bool(panel.frame[quantity.name].notna().any())


def headlines(panel: Panel, metrics: Mapping[str, Metric]) -> list[Quantity]:
    """The main quality of each metric in this panel: its first mean quantity."""
    shown = {q.name for q in shown_quantities(panel, metrics)}
    firsts = []
    for metric in metrics.values():
        found = [q for q in metric.quantities if q.name in shown and q.kind == "mean" and not q.partial]
        firsts += found[:1]
    return firsts


def _cost_table(panel: Panel, metrics: Mapping[str, Metric], names: Names, results: Results) -> Table:
    """Quality and cost, with the Pareto-optimal methods."""
    quality = headlines(panel, metrics)
    speed = [q for q in SPEED if q.name in panel.frame and panel.frame[q.name].notna().any()]
    cost = costs(panel.frame)
    more = [*MORE_COST, *speed, ONCE]
    table = method_table(panel, [*quality, *cost, *more], names)
    price = next((q for q in (MORE_COST[0], *cost[::-1]) if panel.frame[q.name].notna().all()), cost[0])
    fronts = {q.name: on_front(_column(table.rows, q), _column(table.rows, price), q) for q in quality}
    rows = []
    for i, row in enumerate(table.rows):
        best = [q.label for q in quality if fronts[q.name][i]]
        rows.append(replace(row, labels=row.labels | {"front": ", ".join(best) or "—"}))
    notes = [
        *_own(table),
        *_partial(table),
        *notes_on_scores(panel.frame, metrics, results, panel.prior),
        f"Pareto-optimal: no other row is as good for less {price.label}, or better for as much.",
        *(f"{q.label}: {q.note}." for q in (*cost, *more)),
    ]
    caption = f"{what(panel)}: quality against cost per run, means over prompts."
    columns = table.label_columns | {"front": "Pareto-optimal in"}
    name = table.name.replace("methods", "cost", 1)
    return replace(table, name=name, caption=caption, rows=rows, label_columns=columns, notes=notes)


def _column(rows: Sequence[Row], quantity: Quantity) -> list[float]:
    found: list[Cell] = [cell for row in rows for cell in row.cells if cell.quantity.name == quantity.name]
    return [cell.mean if cell.comparable else float("nan") for cell in found]


def _own(table: Table) -> list[str]:
    """What the mark at numbers means that their row's method maximised."""
    return optimised_note([cell for row in table.rows for cell in row.cells])


def what(panel: Panel) -> str:
    """Prompt set, number of prompts, prior."""
    prompts = f"{panel.prompts} prompt{'s' if panel.prompts != 1 else ''}"
    if panel.prompts < panel.prompts_in_set:
        prompts = f"the {panel.prompts} of {panel.prompts_in_set} prompts that all rows have"
    return f"Prompt set {panel.title} ({prompts}), prior {panel.prior}"


def _caption(panel: Panel, over_prompts: bool) -> str:
    if not over_prompts:
        return f"{what(panel)}, per prompt (mean over seeds)."
    spread = "mean ± std over prompts (ddof 1) of the mean over seeds"
    return f"{what(panel)}: {spread}; a dash if prompts are missing."


def _marks(table: Table) -> list[str]:
    """What bold and italic mean, and the difference between the best and the second number."""
    if not any(cell.rank for row in table.rows for cell in row.cells):
        return []
    legend = "Bold: better than every other row, decided by Holm's correction over all pairs (`table=pairs`)."
    notes = [f"{legend} Italic: the best number, not decided."]
    words = []
    for i, quantity in enumerate(table.quantities):
        sign = -1 if quantity.higher_is_better else 1
        order = sorted(
            (row.cells[i] for row in table.rows if row.cells[i].comparable), key=lambda c: sign * c.mean
        )
        if len(order) < 2 or not order[0].rank or quantity.kind == "count":
            continue
        gap = paired_difference(*on_same_prompts(order[0], order[1]))
        if gap.prompts >= FEWEST:
            words.append(f"{quantity.label} {gap.text(quantity.decimals)}")
    if words:
        notes.append(f"Best − second, 95 % interval of this difference alone: {'; '.join(words)}.")
    return notes


def _partial(table: Table) -> list[str]:
    """What a dash with a count means, if the table has one."""
    if all(cell.complete or not cell.expected for row in table.rows for cell in row.cells):
        return []
    notes = ["— (n/N): only n of N prompts have a value, so no mean is shown; `table=prompts` has them."]
    lacking = [
        f"{' '.join(row.labels[c] for c in table.label_columns if c in ('method', 'representation'))} "
        f"{cell.expected - len(cell.by_prompt)} of {cell.expected}"
        for row in table.rows
        for cell in row.cells
        if cell.quantity.name == COST[1].name and len(cell.by_prompt) < cell.expected
    ]
    if lacking:
        notes.append(
            f"Prompts without a finished run: {', '.join(lacking)}; the command that started the runs makes "
            "only what is missing. `tables.over=common_prompts` gives means over the prompts that all rows "
            "have."
        )
    return notes


def _judge_notes(panel: Panel, metrics: Mapping[str, Metric], results: Results) -> list[str]:
    """Why runs have no score, and descriptions of the judges."""
    notes = notes_on_scores(panel.frame, metrics, results, panel.prior)
    for name in metrics:
        judges = panel.frame[f"{name}_judge"]
        notes += [
            f"{results.judges[judge]}." for judge in sorted(judges.dropna().unique()) if judges.nunique() == 1
        ]
    return notes
