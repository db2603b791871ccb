"""The tables of a section, as the blocks of the page take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evaluation.metrics.base import Metric
from evaluation.results.aggregate import Table, optimised_note
from evaluation.results.controls import Shown
from evaluation.results.names import display_names
from evaluation.tables import formats
from evaluation.tables.method_tables import make_tables
from scripts.leaderboard.ranking import best_first
from scripts.leaderboard.rows import Board

Metrics = Mapping[str, Metric]


def table(
    board: Board,
    section: str,
    metrics: Metrics,
    controls: Shown = "none",
    over: str = "auto",
    kind: str = "methods",
) -> Table:
    """A section's table of methods or, with kind="cost", of quality against cost; methods best first."""
    results = board.results(section)
    names, order = display_names(results.frame), best_first(board, section)
    return make_tables(results, metrics, names, order, over=over, controls=controls, kinds=(kind,))[0]


def markdown(whole: Table) -> str:
    return formats.markdown(formats.grid(whole)).strip("\n")


def short(whole: Table, names: tuple[str, ...]) -> str:
    """Some columns of a table, with the note on numbers that a method maximises but no others."""
    shown = only(whole, names)
    notes = optimised_note([cell for row in shown.rows for cell in row.cells])
    return formats.markdown(replace(formats.grid(shown), caption="", notes=notes)).strip("\n")


def only(whole: Table, names: tuple[str, ...]) -> Table:
    """The table with some of its columns."""
    places = [i for i, quantity in enumerate(whole.quantities) if quantity.name in names]
    rows = [replace(row, cells=[row.cells[i] for i in places]) for row in whole.rows]
    return replace(whole, quantities=[whole.quantities[i] for i in places], rows=rows)
