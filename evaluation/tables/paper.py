"""The paper's tables as data: printed values, and doubts about them (paper_tables.yaml)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import yaml

DATA = Path(__file__).with_name("paper_tables.yaml")


@dataclass(frozen=True)
class PaperRow:
    """One printed row: values by column and the minutes as printed."""

    method: str
    values: dict[str, float]
    spread: float | None = None  # of ImageReward
    minutes: str | None = None


@dataclass(frozen=True)
class Doubt:
    letter: str  # the mark at the number; empty if about the whole table
    id: str
    at: tuple[dict[str, str], ...]  # empty dict: the title
    text: str


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper."""

    number: int
    title: str
    kind: str  # preference, elo, image_reward
    columns: dict[str, str]  # column -> heading
    rows: dict[str, PaperRow]
    doubts: tuple[Doubt, ...]
    representation: str | None = None
    aspect: str | None = None  # of a user study
    extra: bool = False  # whether to show methods that are not in the paper

    def marks(self, row: str | None = None, column: str | None = None) -> str:
        """Letters of the doubts about exactly this row, column or number."""
        place = {key: value for key, value in (("row", row), ("column", column)) if value is not None}
        return "".join(doubt.letter for doubt in self.doubts if place in doubt.at)


@cache
def paper_tables() -> dict[int, PaperTable]:
    """All eight tables, by number."""
    content = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    return {entry["number"]: _table(entry, content) for entry in content["tables"]}


def _table(entry: dict[str, Any], content: dict[str, Any]) -> PaperTable:
    kind = entry["kind"]
    if kind == "preference":
        columns = {name: content["aspects"]["labels"][name] for name in content["aspects"]["columns"]}
    elif kind == "elo":
        columns = {name: content["criteria"][name] for name in entry["columns"]}
    else:
        columns = {"image_reward": "ImageReward"}
    return PaperTable(
        number=entry["number"],
        title=entry["title"],
        kind=kind,
        columns=columns,
        rows={row.method: row for row in _rows(entry, list(columns))},
        doubts=tuple(_doubts(entry["doubts"])),
        representation=entry.get("representation"),
        aspect=entry.get("aspect"),
        extra=bool(entry.get("extra")),
    )


def _rows(entry: dict[str, Any], columns: list[str]) -> Iterator[PaperRow]:
    for method, row in entry["rows"].items():
        if entry["kind"] == "preference":
            yield PaperRow(method, dict(zip(columns, row, strict=True)))
        elif entry["kind"] == "elo":
            yield PaperRow(method, dict(zip(columns, row["values"], strict=True)), minutes=row["minutes"])
        else:
            yield PaperRow(method, {"image_reward": row["mean"]}, row["spread"], row["minutes"])


def _doubts(entries: list[dict[str, Any]]) -> Iterator[Doubt]:
    letters = iter(ascii_lowercase)
    for entry in entries:
        letter = "" if entry["at"] == "title" else next(letters)
        yield Doubt(letter, entry["id"], _places(entry["at"]), entry["text"])


def _places(at: Any) -> tuple[dict[str, str], ...]:
    if at == "title":
        return ({},)
    return tuple(at) if isinstance(at, list) else (at,)
