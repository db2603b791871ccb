"""Controls in tables: rows of assets whose answer is known, and marks at differences that a wrong asset
gains too.

The scores are those of the control runs under the output root or, if there are none, those in controls.json,
which `make results` writes for the toy prompts. Only scores of the same judge as the table's are used.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

import pandas as pd

from evaluation.metrics.base import TOY_PRIORS, Metric, Quantity
from evaluation.results.aggregate import (
    COST,
    MORE_COST,
    ONCE,
    OPTIMISED,
    SETTINGS,
    SHARED,
    Panel,
    Row,
    Table,
    method_table,
)
from evaluation.results.collect import Results
from trace_bench.run_folder.manifest import CONTROL
from trace_bench.system.errors import TraceBenchError

Shown = Literal["none", "best", "all"]
COMMITTED = Path(__file__).parent / "controls.json"
TRUTH = "truth"
_ABOUT = ("control", "right", "display_name", "prompt_set", "prior", "prompt_id", "prompt", "fingerprint")
_MISSING = (
    "Controls: none has a score of the same judge; `python -m trace_bench -m experiment=controls`, then "
    "`python -m evaluation.score`"
)
_NONE = "Controls: only prompt sets of the toy world have them, with prior=tiny and prompt_set=toy"


@dataclass(frozen=True)
class Gain:
    """What a wrong asset has over the truth in one number, as a mean over `prompts` prompts."""

    name: str  # of the control
    value: float
    prompts: int


def shown(value: Any) -> Shown:
    """The setting `tables.controls`."""
    if value not in get_args(Shown):
        raise TraceBenchError(f"tables.controls={value} is invalid: use {', '.join(get_args(Shown))}.")
    return cast(Shown, value)


def controls_of(panel: Panel, results: Results, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """The controls with the prompt set and prior of a panel; scores of other judges are empty."""
    found = pd.DataFrame() if panel.own else _of_panel(results.controls, panel)
    if found.empty and not panel.own:
        found = _of_panel(committed(), panel)
    if found.empty:
        return found
    found = found.reindex(columns=list(dict.fromkeys([*found.columns, *panel.frame.columns])))
    for name, metric in metrics.items():
        judges = panel.frame[f"{name}_judge"].dropna().unique()
        if len(judges) != 1:
            judges = [None]
        other = (found[f"{name}_judge"] != judges[0]).fillna(True).astype(bool)
        found.loc[other, [quantity.name for quantity in metric.quantities]] = math.nan
    return found


def _of_panel(controls: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    if controls.empty:
        return controls
    mine = (controls["prompt_set"] == panel.prompt_set) & (controls["prior"] == panel.prior)
    prompts = set(panel.frame["prompt"].astype(str))
    return controls[mine & controls["prompt"].isin(prompts)].reset_index(drop=True)


def gains(controls: pd.DataFrame, quantities: Sequence[Quantity]) -> dict[str, Gain]:
    """By quantity, the wrong control with the largest gain over the truth, if it shows in the table."""
    found: dict[str, Gain] = {}
    for quantity in quantities:
        if quantity.higher_is_better is None or quantity.kind != "mean":
            continue
        values = controls.pivot_table(index="prompt", columns="control", values=quantity.name, aggfunc="mean")
        if TRUTH not in values:
            continue
        sign = 1.0 if quantity.higher_is_better else -1.0
        better = values.drop(columns=TRUTH).sub(values[TRUTH], axis=0) * sign
        wrong = controls.loc[controls["right"] != True, ["control", "display_name"]]  # noqa: E712
        for control, name in wrong.drop_duplicates().itertuples(index=False):
            gap = better[control].dropna() if control in better else pd.Series(dtype=float)
            least = found[quantity.name].value if quantity.name in found else 0.5 * 10.0**-quantity.decimals
            if len(gap) and gap.mean() > least:
                found[quantity.name] = Gain(str(name), float(gap.mean()), len(gap))
    return found


def with_controls(table: Table, panel: Panel, controls: pd.DataFrame, which: Shown) -> Table:
    """A table of methods with marks, and with rows of controls below, which have no ranks."""
    if controls.empty:
        if which == "none":
            return table
        there = not panel.own and panel.prompt_set == "toy" and panel.prior in TOY_PRIORS
        return replace(table, notes=[*table.notes, f"{_MISSING if there else _NONE}."])
    marked = _marked(table, gains(controls, table.quantities))
    if which == "none":
        return marked
    below, notes = _rows(table, panel, controls, which)
    return replace(marked, rows=[*marked.rows, *below], notes=[*marked.notes, *notes])


def _marked(table: Table, gained: Mapping[str, Gain]) -> Table:
    """Mark what is behind the best by less than a control gains."""
    rows, notes = [list(row.cells) for row in table.rows], []
    letters = iter(string.ascii_lowercase.replace(OPTIMISED, ""))
    for i, quantity in enumerate(table.quantities):
        gain = gained.get(quantity.name)
        complete = [cells[i].mean for cells in rows if cells[i].comparable]
        if gain is None or len(complete) < 2:
            continue
        best = max(complete) if quantity.higher_is_better else min(complete)
        behind = [
            cells for cells in rows if cells[i].comparable and 0 < abs(cells[i].mean - best) < gain.value
        ]
        if not behind:
            continue
        letter = next(letters)
        for cells in behind:
            cells[i] = replace(cells[i], marks=cells[i].marks + letter)
        notes.append(
            f"({letter}) {quantity.label}: behind the best by less than a wrong asset gains over the truth "
            f"({gain.name}, +{gain.value:.{quantity.decimals + 1}f} over {gain.prompts} prompts)."
        )
    made = [replace(row, cells=cells) for row, cells in zip(table.rows, rows, strict=True)]
    return replace(table, rows=made, notes=[*table.notes, *notes])


def _rows(table: Table, panel: Panel, controls: pd.DataFrame, which: Shown) -> tuple[list[Row], list[str]]:
    """The truth, then the best or every control, in the columns of the table."""
    names = {"method": dict(zip(controls["method"], controls["display_name"], strict=True))}
    frame = controls.assign(method=controls["method"].astype(str))
    found = method_table(replace(panel, frame=frame), table.quantities, names).rows
    order = {name: i for i, name in enumerate(dict.fromkeys(frame["method"]))}
    found = sorted((_plain(row, table) for row in found), key=lambda row: order[str(row.key["method"])])
    about = frame.drop_duplicates("method").set_index("method")
    truth = [row for row in found if about.loc[str(row.key["method"]), "control"] == TRUTH]
    others = [row for row in found if row not in truth]
    first = next((i for i, q in enumerate(table.quantities) if q.higher_is_better is not None), None)
    if which == "best":
        wrong = [row for row in others if about.loc[str(row.key["method"]), "right"] != True]  # noqa: E712
        known = [row for row in wrong if first is not None and row.cells[first].complete]
        sign = 1.0 if first is not None and table.quantities[first].higher_is_better else -1.0
        others = [max(known, key=lambda row: sign * row.cells[cast(int, first)].mean)] if known else []
    note = "Below the methods: the true objects, and assets wrong in one known way (docs/evaluation.md)."
    return [*truth, *(_named(row) for row in others)], [note]


def _plain(row: Row, table: Table) -> Row:
    """Without ranks and with a bare dash where a control has no such number."""
    labels = dict.fromkeys(table.label_columns, "—") | {"method": row.labels["method"]}
    cells = [replace(cell, rank=0, expected=cell.expected if cell.n else 0) for cell in row.cells]
    return replace(row, labels=labels, cells=cells)


def _named(row: Row) -> Row:
    return replace(row, labels=row.labels | {"method": f"Control: {row.labels['method']}"})


def to_json(controls: pd.DataFrame, metrics: Mapping[str, Metric]) -> str:
    """The content of controls.json: scores, judges and fingerprints of finished control runs."""
    columns = [name for metric in metrics.values() for name in _columns(metric)]
    judges = [f"{name}_judge" for name in metrics]
    lines = []
    for row in controls.to_dict("records"):
        said = {key: _json(row.get(key)) for key in (*_ABOUT, *judges, *columns)}
        lines.append(json.dumps({key: value for key, value in said.items() if value is not None}))
    versions = json.dumps({name: metric.version for name, metric in metrics.items()})
    return f'{{"versions": {versions}, "runs": [\n' + ",\n".join(lines) + "\n]}\n"


def _columns(metric: Metric) -> list[str]:
    names = [quantity.name for quantity in metric.quantities]
    return names + [f"{quantity.name}_applies" for quantity in metric.quantities if quantity.partial]


def _json(value: Any) -> Any:
    if value is None or pd.isna(value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    return round(value, 5) if isinstance(value, float) else value


def committed_judges() -> list[str]:
    """The metrics of controls.json with their versions; [] if there is no such file."""
    if not COMMITTED.is_file():
        return []
    versions = json.loads(COMMITTED.read_text(encoding="utf-8"))["versions"]
    return [f"{name} version {version}" for name, version in versions.items()]


@cache
def committed() -> pd.DataFrame:
    """The controls in controls.json as rows of the frame of runs; empty if there is no such file."""
    if not COMMITTED.is_file():
        return pd.DataFrame()
    frame = pd.DataFrame(json.loads(COMMITTED.read_text(encoding="utf-8"))["runs"])
    missing = [*SETTINGS, *(q.name for q in (*COST, SHARED, *MORE_COST, ONCE)), "prompts_in_set"]
    return frame.assign(
        method=f"{CONTROL}-" + frame["control"].str.replace("_", "-"),
        representation=CONTROL,
        own_prompt=False,
        **dict.fromkeys(missing, math.nan),
    )
