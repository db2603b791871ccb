"""Tables as Markdown for the terminal and CSV for everything else; `evaluation.tables.latex` for a paper.

A `Grid` is a formatted table: headings, entries with rank and footnote marks, caption, notes. `grid` builds
one from a table of methods or prompts; `evaluation.tables.paper_tables` builds those of the paper.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from evaluation.metrics.base import Quantity
from evaluation.results.aggregate import Cell, Table
from evaluation.results.csv_text import csv_text
from evaluation.results.markdown import plain, sentence

ARROWS = {True: " ↑", False: " ↓", None: ""}
_RAISED = str.maketrans("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")


@dataclass(frozen=True)
class Entry:
    """A cell of the table's body."""

    text: str
    rank: int = 0  # 1 decided best, 2 best number but not decided
    marks: str = ""  # letters of the footnotes about it
    repeated: str = ""  # the label of the row above, where a blank stands for it


@dataclass(frozen=True)
class Heading:
    text: str
    group: str = ""  # shared heading of several columns
    marks: str = ""


@dataclass(frozen=True)
class Grid:
    name: str  # file name
    caption: str
    head: list[Heading]
    body: list[list[Entry]]
    labels: int  # number of label columns on the left
    records: list[dict[str, object]]  # the rows at full precision, for CSV
    notes: list[str] = field(default_factory=list)

    @property
    def share_filled(self) -> float:
        """The share of our own results in the body that are no dash; 0 of a table without any."""
        ours = [
            i
            for i, h in enumerate(self.head)
            if i >= self.labels and (h.text, h.group) != ("Runs", "") and h.group != "Minutes"
            and not (h.group and h.text == "paper")
        ]  # fmt: skip
        cells = [row[i].text for row in self.body for i in ours]
        return sum(bool(text) and not text.startswith("—") for text in cells) / max(len(cells), 1)


def heading(quantity: Quantity) -> str:
    return quantity.label + ARROWS[quantity.higher_is_better]


def cell_text(cell: Cell) -> str:
    """0.812 ± 0.034, 7/8, or a dash with the number of available prompts; a bare dash if undefined."""
    if not cell.complete:
        return f"— ({cell.n}/{cell.expected})" if cell.expected else "—"
    if cell.quantity.kind == "count":
        return f"{cell.count}/{cell.n}"
    digits = cell.quantity.decimals
    mean = f"{cell.mean:.{digits}f}"
    return mean if math.isnan(cell.std) else f"{mean} ± {cell.std:.{digits}f}"


def grid(table: Table) -> Grid:
    """Format a table; in a table of prompts, repeated prompts are left blank."""
    head = [Heading(label) for label in table.label_columns.values()]
    head += [Heading(heading(quantity)) for quantity in table.quantities] + [Heading("Runs")]
    body, above = [], ""
    for row in table.rows:
        labels = [row.labels[column] for column in table.label_columns]
        repeats = "prompt" in table.label_columns and labels[0] == above
        above = labels[0]
        entries = [Entry("", repeated=labels[0]) if repeats else Entry(labels[0]), *map(Entry, labels[1:])]
        entries += [Entry(cell_text(cell), cell.rank, cell.marks) for cell in row.cells]
        body.append([*entries, Entry(str(row.runs))])
    return Grid(table.name, table.caption, head, body, len(table.label_columns), _records(table), table.notes)


def _records(table: Table) -> list[dict[str, object]]:
    """Mean, std over prompts, n and expected n of every number; an incomplete mean is empty."""
    rows = []
    for row in table.rows:
        record: dict[str, object] = dict(row.labels) | {"runs": row.runs}
        for cell in row.cells:
            name = cell.quantity.name
            record |= {f"{name}_mean": cell.mean, f"{name}_n": cell.n, f"{name}_expected": cell.expected}
            if cell.quantity.kind == "mean":
                record[f"{name}_std_prompts"] = cell.std
        rows.append(record)
    return rows


def markdown(table: Grid, width: int | None = None) -> str:
    """A Markdown table with aligned columns, caption and notes; **decided best**, _best but undecided_.

    A table wider than `width` is split into several, each starting with the labels.
    """
    marks: dict[int, Callable[[str], str]] = {0: str, 1: "**{}**".format, 2: "_{}_".format}

    names = [h.group if h.group and h.group != before else h.text for h, before in _with_group_before(table)]
    head = [plain(n) + raised(h.marks) for n, h in zip(names, table.head, strict=True)]
    body = [[marks[e.rank](plain(e.text)) + raised(e.marks) for e in row] for row in table.body]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]

    def line(row: Sequence[str], columns: Sequence[int]) -> str:
        padded = [row[i].ljust(widths[i]) if i < table.labels else row[i].rjust(widths[i]) for i in columns]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i < table.labels else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    parts = [sentence(table.caption)]
    for columns in column_pieces(table, widths, width):
        parts += ["", line(head, columns), line(rule, columns), *(line(row, columns) for row in body)]
    if table.notes:
        parts += ["", *(f"- {_raise_mark(sentence(note))}" for note in table.notes)]
    return "\n".join(parts) + "\n"


def _with_group_before(table: Grid) -> list[tuple[Heading, str]]:
    return list(zip(table.head, ["", *(h.group for h in table.head)], strict=False))


def raised(letters: str) -> str:
    """Letters as marks at a number."""
    return letters.translate(_RAISED)


def _raise_mark(note: str) -> str:
    """Turn the "(a)" of a note into the mark used at the number."""
    return re.sub(r"^\(([a-z])\)", lambda match: raised(match[1]), note)


def column_pieces(table: Grid, widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Columns of each piece; groups stay together, and every piece has the labels."""
    labels = list(range(table.labels))
    blocks: list[list[int]] = []
    for i in range(table.labels, len(widths)):
        group = table.head[i].group
        if group and blocks and table.head[blocks[-1][-1]].group == group:
            blocks[-1].append(i)
        else:
            blocks.append([i])
    start = 1 + sum(widths[i] + 3 for i in labels)
    pieces, used = [list(labels)], start
    for block in blocks:
        needed = sum(widths[i] + 3 for i in block)
        if width is not None and used + needed > width and len(pieces[-1]) > len(labels):
            pieces.append(list(labels))
            used = start
        pieces[-1] += block
        used += needed
    return pieces


def csv(table: Grid) -> str:
    """The rows at full precision."""
    return csv_text(pd.DataFrame(table.records))
