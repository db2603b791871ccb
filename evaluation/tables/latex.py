"""Tables for a paper: booktabs, no wider than a line and no taller than a page.

A column of labels that is the same in all rows moves into the caption, and a label that several rows share
stands in a line above them. What is still too wide is split into several tabulars below each other, each
starting with the labels; a long table continues on the next page. A small rest is scaled down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from evaluation.tables.formats import Grid, column_pieces
from trace_bench.system.text import one_line

PACKAGES = "% needs \\usepackage{booktabs,graphicx}"
_WIDTH = 112  # characters of a tabular, 3 of them between columns, before it is scaled to the line
_SHRUNK = 1.15  # a tabular can be wider by this much if that saves one
_LABEL = 26  # characters; a longer label is set in lines of this width
_SPAN = 84  # characters of a label above its rows, in a line
_LINES = 47  # of 8 pt type on a page, caption and notes included
_PROSE = 84  # characters in a line of notes
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def latex(table: Grid) -> str:
    """Floats of one table: several, if it needs more than one page.

    The decided best is bold, a best number that is not decided italic, as in Markdown.
    """
    table, same = _without_constant_labels(table)
    table, shared = _without_shared_label(table)
    pages: list[_Page] = []

    def turn_page() -> _Page:
        pages.append(_Page(table, same, first=not pages))
        return pages[-1]

    page = turn_page()
    widths = _widths(table)
    for columns in _pieces(table, widths):
        todo = list(range(len(table.body)))
        head = 3.0 + any(table.head[i].group for i in columns)
        while True:
            heights = [_height(table, shared, row, columns, row == todo[0]) for row in todo]
            fitting = _fitting(heights, _LINES - page.used - head)
            if fitting < min(len(todo), 4) and not page.is_fresh:
                page = turn_page()
                continue
            fitting = max(fitting, 1)
            page.add(_tabular(table, columns, todo[:fitting], shared, widths), head + sum(heights[:fitting]))
            todo = todo[fitting:]
            if not todo:
                break
            page = turn_page()
    for note in table.notes:
        if page.used + len(note) / _PROSE > _LINES:
            page = turn_page()
        page.add_note(note)
    text = "\n\\clearpage\n".join("\n".join([*page.lines, "\\end{table}"]) for page in pages) + "\n"
    return "\n".join([PACKAGES, *_script(text), text])


class _Page:
    """A float with a caption, tabulars and notes, and its height in lines."""

    def __init__(self, table: Grid, same: Sequence[str], first: bool) -> None:
        caption = prose(" ".join([table.caption, *same])) if first else "continued"
        self.used = 1.5 + 1.3 * math.ceil(len(caption) / _PROSE)
        self.is_fresh, self.has_notes = True, False
        self.lines = ["\\begin{table}", "\\centering\\footnotesize\\sloppy"]
        if first:
            label = re.sub(r"[^A-Za-z0-9.:-]", "-", table.name)
            self.lines += [rf"\caption{{{caption}}}", rf"\label{{tab:{label}}}"]
        else:
            self.lines += ["\\addtocounter{table}{-1}", rf"\caption[]{{{caption}}}"]

    def add(self, lines: Iterator[str], height: float) -> None:
        self.lines += lines
        self.used += height
        self.is_fresh = False

    def add_note(self, note: str) -> None:
        """Notes follow each other in one paragraph."""
        if not self.has_notes:
            self.lines.append("\\par\\smallskip\\raggedright")
        self.lines.append(prose(note))
        self.used += len(note) / _PROSE
        self.is_fresh, self.has_notes = False, True


def _without_constant_labels(table: Grid) -> tuple[Grid, list[str]]:
    """The table without columns of labels that say the same in every row, and sentences that say it."""
    constant = [
        i
        for i in range(1, table.labels)
        if len(table.body) > 1 and len({(row[i].text, row[i].marks) for row in table.body}) == 1
    ]
    kept = [i for i in range(len(table.head)) if i not in constant]
    said = [f"{table.head[i].text}: {table.body[0][i].text}." for i in constant if table.body[0][i].text]
    head, body = [table.head[i] for i in kept], [[row[i] for i in kept] for row in table.body]
    labels = table.labels - len(constant)
    return replace(table, head=head, body=body, labels=labels), said


def _without_shared_label(table: Grid) -> tuple[Grid, list[str]]:
    """The table without its first column, and that column's text for each row, if rows leave it blank."""
    if table.labels < 2 or all(row[0].text for row in table.body):
        return table, []
    shared: list[str] = []
    for row in table.body:
        shared.append(row[0].text or (shared[-1] if shared else ""))
    body = [row[1:] for row in table.body]
    return replace(table, head=table.head[1:], body=body, labels=table.labels - 1), shared


def _widths(table: Grid) -> list[int]:
    """Characters of each column; a group's heading widens its columns."""
    texts = [[h.text for h in table.head], *([e.text for e in row] for row in table.body)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(table.head))]
    for i, h in enumerate(table.head):
        members = sum(other.group == h.group for other in table.head) if h.group else 0
        widths[i] = max(widths[i], math.ceil(len(h.group) / members) if members else 0)
    return [min(w, _LABEL) if i < table.labels else w for i, w in enumerate(widths)]


def _pieces(table: Grid, widths: Sequence[int]) -> list[list[int]]:
    """The columns of each tabular: as few as possible, and about equally wide."""
    pieces = column_pieces(table, widths, round(_WIDTH * _SHRUNK))
    for width in range(round(_WIDTH * _SHRUNK), 0, -2):
        narrower = column_pieces(table, widths, width)
        if len(narrower) > len(pieces):
            break
        pieces = narrower
    return pieces


def _height(table: Grid, shared: Sequence[str], row: int, columns: Sequence[int], is_first: bool) -> float:
    """Lines of a row: long labels have several, and a shared label stands above."""
    texts = [table.body[row][i].text for i in columns if i < table.labels]
    height = max([1.0, *(math.ceil(1.15 * len(text) / _LABEL) for text in texts)])
    if shared and (is_first or shared[row] != shared[row - 1]):
        height += 0.6 + math.ceil(len(shared[row]) / _SPAN)
    return height


def _fitting(heights: Sequence[float], room: float) -> int:
    """How many of the rows fit."""
    total = 0.0
    for i, height in enumerate(heights):
        total += height
        if total > room:
            return i
    return len(heights)


def _tabular(
    table: Grid, columns: Sequence[int], rows: Sequence[int], shared: Sequence[str], widths: Sequence[int]
) -> Iterator[str]:
    marks: dict[int, Callable[[str], str]] = {0: str, 1: r"\textbf{{{}}}".format, 2: r"\textit{{{}}}".format}
    longest = [max((len(row[i].text) for row in table.body), default=0) for i in range(table.labels)]
    wrapped = {i for i in columns if i < table.labels and longest[i] > _LABEL}

    def cell(row: int, i: int) -> str:
        entry = table.body[row][i]
        text = marks[entry.rank](escape(entry.text)) + raised(entry.marks)
        return rf"\raggedright\hspace{{0pt}}{text}" if i in wrapped and text else text

    def line(row: int) -> Iterator[str]:
        if shared and (row == rows[0] or shared[row] != shared[row - 1]):
            kind = r"p{0.97\linewidth}" if len(shared[row]) > _SPAN // 2 else "l"
            if row != rows[0]:
                yield "\\addlinespace"
            yield rf"\multicolumn{{{len(columns)}}}{{{kind}}}{{\textit{{{escape(shared[row])}}}}} \\"
        yield " & ".join(cell(row, i) for i in columns) + " \\\\"

    kinds = [
        rf"p{{{widths[i] / _WIDTH:.2f}\linewidth}}" if i in wrapped else "l" if i < table.labels else "r"
        for i in columns
    ]
    yield from ("\\par\\medskip", _FIT, rf"\begin{{tabular}}{{{''.join(kinds)}}}", "\\toprule")
    yield from _group_lines(table, columns)
    yield " & ".join(escape(table.head[i].text) + raised(table.head[i].marks) for i in columns) + " \\\\"
    yield "\\midrule"
    for row in rows:
        yield from line(row)
    yield from ("\\bottomrule", "\\end{tabular}}")


def _group_lines(table: Grid, columns: Sequence[int]) -> list[str]:
    """The headings of column groups, with a rule below each."""
    heads = [table.head[i] for i in columns]
    if not any(h.group for h in heads):
        return []
    spans: list[tuple[str, int, int]] = []  # text, first column, last column, from 1
    for i, h in enumerate(heads, start=1):
        if spans and h.group and spans[-1][0] == h.group:
            spans[-1] = (h.group, spans[-1][1], i)
        else:
            spans.append((h.group, i, i))
    over = [rf"\multicolumn{{{b - a + 1}}}{{c}}{{{escape(text)}}}" if text else "" for text, a, b in spans]
    rules = [rf"\cmidrule(lr){{{a}-{b}}}" for text, a, b in spans if text]
    return [" & ".join(over) + " \\\\", " ".join(rules)]


def raised(letters: str) -> str:
    """Footnote marks."""
    return rf"\textsuperscript{{{','.join(letters)}}}" if letters else ""


def prose(text: str) -> str:
    """A sentence: `code` in typewriter type, and the mark of a note raised."""
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:  # a stray one
        return "`".join(parts)
    made = "".join(rf"\texttt{{{part}}}" if i % 2 else part for i, part in enumerate(parts))
    return re.sub(r"^\(([a-z])\)", lambda match: raised(match[1]), made)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δ": r"$\Delta$", "—": "---", "×": r"$\times$",
    "−": "$-$", "≥": r"$\geq$", "≤": r"$\leq$", "●": r"$\bullet$", "σ": r"$\sigma$",
}  # fmt: skip


def escape(text: str) -> str:
    """Plain text for LaTeX, on one line."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match.group()], one_line(text))


def _script(text: str) -> list[str]:
    """A comment if pdflatex lacks characters of the text."""
    foreign = any(ord(c) > 0x17F and not 0x2010 <= ord(c) <= 0x2026 for c in text)
    return (
        ["% has characters that pdflatex lacks: use lualatex, with a font that has them"] if foreign else []
    )
