"""Tables as Markdown for the terminal, LaTeX for a paper, CSV for everything else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pandas as pd

from evaluation.aggregate import Cell, Table
from evaluation.metric import Quantity

ARROWS = {True: " ↑", False: " ↓", None: ""}


def heading(quantity: Quantity) -> str:
    return quantity.label + ARROWS[quantity.higher_is_better]


def cell_text(cell: Cell) -> str:
    """0.812 ± 0.034, 7/8, or a dash with the number of prompts that are there."""
    if not cell.complete:
        return f"— ({cell.n}/{cell.expected})"
    if cell.quantity.kind == "count":
        return f"{cell.count}/{cell.n}"
    digits = cell.quantity.decimals
    mean = f"{cell.mean:.{digits}f}"
    return mean if math.isnan(cell.std) else f"{mean} ± {cell.std:.{digits}f}"


def markdown(table: Table) -> str:
    """A Markdown table with aligned columns, its caption and its notes; **best**, _second_."""
    marks: dict[int, Callable[[str], str]] = {0: str, 1: "**{}**".format, 2: "_{}_".format}
    head, body = _grid(
        table, lambda cell: marks[cell.rank](cell_text(cell)), lambda text: text.replace("|", "\\|")
    )
    labels = len(table.label_columns)
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]

    def line(row: list[str]) -> str:
        padded = [
            t.ljust(w) if i < labels else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w) if i < labels else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    parts = [table.caption, "", line(head), line(rule), *map(line, body)]
    if table.notes:
        parts += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """A booktabs table; best bold, second underlined."""
    marks: dict[int, Callable[[str], str]] = {
        0: str,
        1: r"\textbf{{{}}}".format,
        2: r"\underline{{{}}}".format,
    }
    head, body = _grid(table, lambda cell: marks[cell.rank](escape(cell_text(cell))), escape)
    columns = "l" * len(table.label_columns) + "r" * (len(head) - len(table.label_columns))
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape(' '.join([table.caption, *table.notes]))}}}",
        f"\\label{{tab:{table.name}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(head) + " \\\\",
        "\\midrule",
        *(" & ".join(row) + " \\\\" for row in body),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def csv(table: Table) -> str:
    """Full precision: mean, std over prompts, n and expected of every number; an incomplete mean is empty."""
    rows = []
    for row in table.rows:
        record: dict[str, object] = dict(row.labels) | {"runs": row.runs}
        for cell in row.cells:
            name = cell.quantity.name
            record |= {f"{name}_mean": cell.mean, f"{name}_n": cell.n, f"{name}_expected": cell.expected}
            if cell.quantity.kind == "mean":
                record[f"{name}_std_prompts"] = cell.std
        rows.append(record)
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def _grid(
    table: Table, cell: Callable[[Cell], str], text: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    """(heading, body) as texts; a label that repeats the row above in the first column is left out."""
    head = [text(label) for label in table.label_columns.values()]
    head += [text(heading(quantity)) for quantity in table.quantities] + [text("Runs")]
    body, above = [], ""
    for row in table.rows:
        labels = [text(row.labels[column]) for column in table.label_columns]
        repeats = "prompt" in table.label_columns and labels[0] == above
        above = labels[0]
        body.append([*(["", *labels[1:]] if repeats else labels), *map(cell, row.cells), str(row.runs)])
    return head, body


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δ": r"$\Delta$", "—": "---", "×": r"$\times$",
}  # fmt: skip


def escape(text: str) -> str:
    """Plain text for LaTeX."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match.group()], text)
