"""CSV that a spreadsheet opens as data: no text of a prompt or a name becomes a formula."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # what a spreadsheet may take for the beginning of one
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_MARK = "'"  # a spreadsheet shows what follows as text


def csv_text(frame: pd.DataFrame) -> str:
    """The frame as CSV without its index; texts that look like a formula get an apostrophe in front."""
    cells = frame.map(_as_text) if len(frame) else frame
    return cells.rename(columns=_as_text).to_csv(index=False, lineterminator="\n")


def read_csv(source: Path | TextIO) -> pd.DataFrame:
    """A CSV with all cells as texts, as they were before `csv_text`."""
    frame = pd.read_csv(source, dtype=str, keep_default_na=False)
    return frame.map(_as_before) if len(frame) else frame


def _as_text(cell: Any) -> Any:
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell):
        return cell
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")  # Python's csv does not quote a lone \r
    return _MARK + cell if _FORMULA.match(cell.removeprefix(_MARK)) else cell


def _as_before(cell: str) -> str:
    return cell[1:] if cell.startswith(_MARK) and _FORMULA.match(cell[1:].removeprefix(_MARK)) else cell
