"""The committed results of the leaderboard: one JSON file, with one line per run.

    {"versions": {...}, "judges": {id: description}, "failures": [[...], ...],
     "sections": {name: {"common": {...}, "columns": [...], "rows": [[...], ...]}}}

`common` holds the columns that have one value in the whole section. `failures` are runs that end in an error
by their method or its settings, which is a result too; a comparison of methods has none. Tables are made from
this file alone, so anyone can check them without running anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.metrics.base import Metric
from evaluation.results.collect import Results
from trace_bench.run_folder.reading import natural
from trace_bench.system.errors import TraceBenchError

FILE = Path("docs") / "leaderboard.json"
ORDER = ("method", "control", "prompt_id", "seed", "guidance_scale", "init", "view_phrases")
DIGITS = 6  # significant ones of a number
#: Columns that say where or when a run was made, or are the parts of others.
_LEFT_OUT = ("folder", "finished", "snapshots", "source")
_PARTS = ("seconds_", "cost_")
_TEXTS = ("method", "representation", "init", "prior", "protocol", "prompt_set", "prompt_id", "prompt",
          "fingerprint", "machine", "display_name", "method_name", "representation_name", "control",
          "variant", "kind", "folder", "optimised", "commit", "torch", "diffusers", "numpy",
          "view_phrases")  # fmt: skip


_INTEGERS = ("seed", "steps", "views_per_step", "resolution")


@dataclass(frozen=True)
class Failed:
    """A run without an asset."""

    section: str
    method: str
    prompt_id: str
    seed: int
    value: str  # of the setting that the section varies
    why: str
    fingerprint: str
    commit: str


@dataclass
class Board:
    """The file's content; a section is a frame as `evaluation.results.collect` makes it, without folders."""

    versions: dict[str, Any] = field(default_factory=dict)
    judges: dict[str, str] = field(default_factory=dict)
    sections: dict[str, pd.DataFrame] = field(default_factory=dict)
    failures: list[Failed] = field(default_factory=list)

    def results(self, section: str) -> Results:
        """A section as input of tables and figures, with the controls."""
        return Results(
            self.sections.get(section, pd.DataFrame()),
            controls=self.sections.get("controls", pd.DataFrame()),
            judges=dict(self.judges),
        )


def kept(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that the file has, sorted so that a new method changes few lines."""
    columns = [c for c in frame.columns if c not in _LEFT_OUT and not c.startswith(_PARTS)]
    keys = [c for c in ORDER if c in frame]
    return frame[columns].sort_values(keys, key=_sortable, kind="stable").reset_index(drop=True)


def _sortable(column: pd.Series) -> pd.Series:
    return column.map(natural) if column.name == "prompt_id" else column


def dumps(board: Board) -> str:
    """The file's text; equal boards give equal text."""
    sections = []
    for name, frame in board.sections.items():
        common, columns = {}, []
        for column in sorted(set(frame.columns) - set(_LEFT_OUT)):
            values = {plain(value) for value in frame[column]}
            if len(values) == 1:
                common[column] = values.pop()
            else:
                columns.append(column)
        rows = [json.dumps([plain(row[c]) for c in columns]) for row in frame.to_dict("records")]
        head = f'"common": {json.dumps(common)},\n"columns": {json.dumps(columns)},\n"rows": [\n'
        sections.append(f"{json.dumps(name)}: {{{head}" + ",\n".join(rows) + "\n]}")
    about = ",\n".join(f'"{key}": {json.dumps(getattr(board, key))}' for key in ("versions", "judges"))
    failures = ",\n".join(json.dumps(astuple(one)) for one in board.failures)
    about += f',\n"failures": [{failures}]'
    return f'{{{about},\n"sections": {{\n' + ",\n".join(sections) + "\n}}\n"


def plain(value: Any) -> Any:
    """A value as JSON has it: None where there is none, numbers with `DIGITS` digits."""
    if value is None or pd.isna(value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        value = float(f"{value:.{DIGITS}g}")
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    return value


def loads(text: str, metrics: Mapping[str, Metric]) -> Board:
    """Read the file's text; raises TraceBenchError if it is no leaderboard."""
    try:
        content = json.loads(text)
        failures = [Failed(*one) for one in content["failures"]]
        board = Board(content["versions"], content["judges"], failures=failures)
        for name, section in content["sections"].items():
            frame = pd.DataFrame(section["rows"], columns=section["columns"]).assign(**section["common"])
            board.sections[name] = _typed(frame.assign(folder=""), metrics)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TraceBenchError(
            f"{FILE} cannot be read ({error}); take it again from git, then add rows with `make leaderboard`."
        ) from error
    return board


def _typed(frame: pd.DataFrame, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Numbers as float64, texts as string, flags as bool, as in a collected frame."""
    texts = {*_TEXTS, *(f"{name}_judge" for name in metrics)}
    for column in frame.columns:
        if column in texts:
            frame[column] = frame[column].astype("string")
        elif frame[column].map(lambda value: isinstance(value, bool)).all():
            frame[column] = frame[column].astype(bool)
        elif column in _INTEGERS and frame[column].notna().all():
            frame[column] = frame[column].astype("int64")
        elif column != "right":
            frame[column] = pd.to_numeric(frame[column]).astype("float64")
    frame["variant"] = frame["variant"].fillna("") if "variant" in frame else ""
    for metric in metrics.values():  # a section may lack a number that only others have
        for name in [q.name for q in metric.quantities] + [
            f"{q.name}_applies" for q in metric.quantities if q.partial
        ]:
            if name not in frame:
                frame[name] = math.nan
    return frame


def with_rows(frame: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """A section with a method's rows added, or replaced if it has some."""
    others = frame[~frame["method"].isin(new["method"])] if len(frame) else frame
    return kept(pd.concat([others, new], ignore_index=True) if len(others) else new)
