"""Blocks of results in a Markdown page: what lies between two comments, which readers do not see.

<!-- results: NAME -->
text that a program writes
<!-- end of results -->
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

WIDTH = 130
#: Columns, and first words of paragraphs, that depend on the machine.
TIMES = ("Minutes", "Min. shared", "Seconds", "Times", "seconds")
_BLOCK = re.compile(
    r"^(?P<indent> *)<!-- results: (?P<name>[\w-]+) -->\n"
    r"(?P<before>\n*)(?P<text>.*?)(?P<after>\n+)"
    r"(?P<end> *<!-- end of results -->)$",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def pages(folder: Path) -> list[Path]:
    """The pages that may hold blocks: README.md and docs/*.md."""
    return [folder / "README.md", *sorted((folder / "docs").glob("*.md"))]


def blocks(page: str) -> dict[str, str]:
    """The blocks of a page, without indentation."""
    return {found["name"]: textwrap.dedent(found["text"]) for found in _BLOCK.finditer(page)}


def replace_block(page: str, name: str, make: Callable[[str], str]) -> str:
    """The page with one block remade from its old text; the blank lines around it stay."""

    def new(found: re.Match[str]) -> str:
        if found["name"] != name:
            return found[0]
        indent = found["indent"]
        text = textwrap.indent(make(textwrap.dedent(found["text"])).strip("\n"), indent)
        return f"{indent}<!-- results: {name} -->\n{found['before']}{text}{found['after']}{found['end']}"

    if name not in blocks(page):
        raise ValueError(f"there is no block {name!r}")
    return _BLOCK.sub(new, page)


def paragraph(text: str, indent: str = "") -> str:
    """A text on lines as long as those of the pages; `indent` before all but the first."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def listed(values: Sequence[object]) -> str:
    """1, 2 and 3."""
    *most, last = [str(value) for value in values] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def numbers(text: str, values: Iterable[str]) -> str:
    """The text with its first numbers replaced by `values`, in order."""
    for value in reversed(list(zip(_NUMBER.finditer(text), values, strict=False))):
        found, new = value
        text = text[: found.start()] + new + text[found.end() :]
    return text


def cells(line: str) -> list[str]:
    """The cells of one line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def fill_table(text: str, values: Mapping[str, Mapping[str, str]]) -> str:
    """The text with values[row][column] put into its table; the first cell of a row is its name.

    Every row must have values; columns without a value stay.
    """
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    columns, filled = cells(lines[start]), set()
    for i in range(start + 2, len(lines)):
        if not lines[i].startswith("|"):
            break
        row = dict(zip(columns, cells(lines[i]), strict=True))
        name = row[columns[0]]
        if name not in values or set(values[name]) - set(columns):
            raise ValueError(f"the row {name!r} of the table has no values, or some without a column")
        filled.add(name)
        lines[i] = f"| {' | '.join((row | dict(values[name])).values())} |"
    if missing := set(values) - filled:
        raise ValueError(f"the table has no row {', '.join(sorted(missing))}")
    return "\n".join(lines)


def keep_times(old: str, new: str) -> str:
    """The new text with the columns and paragraphs of the old one that depend on the machine."""
    before = _paragraphs(old)

    def kept(part: str) -> str:
        start = "|" if part.startswith("|") else TIMES
        same = next((item for item in before if item.startswith(start)), part)
        if start == "|":
            return _with_old_times(same, part)
        return same if part.startswith(TIMES) else part

    return "\n\n".join(map(kept, _paragraphs(new)))


def _paragraphs(text: str) -> list[str]:
    return re.split(r"\n{2,}", text.strip("\n"))


def _with_old_times(old: str, new: str) -> str:
    """The lines of the new table with the old one's cells in the columns of times."""
    columns = cells(old.splitlines()[0])
    known = {cells(line)[0]: dict(zip(columns, cells(line), strict=True)) for line in old.splitlines()[2:]}
    lines = new.splitlines()
    heads = cells(lines[0])
    for i in range(2, len(lines)):
        parts = lines[i].split("|")  # with the padding; the first and the last are empty
        row = known.get(parts[1].strip(), {})
        for k, head in enumerate(heads, start=1):
            if head in TIMES and head in row:
                width = len(parts[k]) - 2
                parts[k] = f" {row[head]:>{width}} " if parts[k].startswith("  ") else f" {row[head]} "
        lines[i] = "|".join(parts)
    return "\n".join(lines)
