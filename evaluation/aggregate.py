"""From the frame of runs to tables: which runs a row stands for, means that are only shown when they are complete."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from evaluation.metric import Metric, Quantity
from evaluation.runs import natural

#: What a row of the table is; the rest of a run's identity (prompt, seed) is averaged over.
ROW = ["method", "representation"]
#: Shown, and told apart, where it differs within a method and representation.
SETTINGS = ["guidance_scale", "init", "protocol", "steps", "views_per_step", "resolution", "variant"]
LABELS = {
    "guidance_scale": "Guidance", "init": "Init", "protocol": "Protocol", "steps": "Steps",
    "views_per_step": "Views a step", "resolution": "Resolution", "variant": "Settings",
}  # fmt: skip
#: What a run costs; declared here because it comes from the manifest, not from a metric.
COST = (
    Quantity("minutes", "Minutes", "wall-clock minutes a run, from the manifest", None, 2, "average"),
    Quantity("unet_items", "UNet items", "UNet batch items a run, forward + backward", None, 0, "average"),
)


@dataclass(frozen=True)
class Cell:
    """One number of a table over `n` of `expected` prompts (or runs, for a count)."""

    quantity: Quantity
    n: int
    expected: int
    mean: float = math.nan  # for a count: k / n
    std: float = math.nan  # over prompts, ddof 1
    count: int = 0  # the k of a count
    rank: int = 0  # 1 best, 2 second, 0 neither

    @property
    def complete(self) -> bool:
        return self.n == self.expected and self.n > 0

    @property
    def shown(self) -> float:
        """The mean as printed, so that what looks equal ranks equal."""
        return self.mean if self.quantity.kind == "count" else round(self.mean, self.quantity.decimals)


@dataclass(frozen=True)
class Row:
    labels: dict[str, str]  # column -> text
    cells: list[Cell]
    runs: int


@dataclass(frozen=True)
class Table:
    """A table of one prompt set and prior."""

    name: str  # file name
    caption: str
    label_columns: dict[str, str]  # column -> heading
    quantities: list[Quantity]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Panel:
    """The runs that may stand in one table: one prompt set, one prior."""

    prompt_set: str
    prior: str
    own: bool  # prompts of the user's own, which belong to no set
    frame: pd.DataFrame

    @property
    def title(self) -> str:
        return "own prompts" if self.own else self.prompt_set

    @property
    def slug(self) -> str:
        return f"{'own-prompts' if self.own else self.prompt_set}-{self.prior}"

    @property
    def prompts(self) -> int:
        """How many prompts a complete row has: as many as the set says, or as all rows together have."""
        declared = self.frame["prompts_in_set"].max()
        present = self.frame["prompt_id"].nunique()
        return present if self.own or math.isnan(declared) else max(present, int(declared))


def panels(frame: pd.DataFrame) -> list[Panel]:
    keys = ["prompt_set", "prior", "own_prompt"]
    if frame.empty:
        return []
    return [Panel(str(s), str(p), bool(own), part.copy()) for (s, p, own), part in frame.groupby(keys, sort=True)]


def split_settings(frame: pd.DataFrame) -> list[str]:
    """The settings that tell rows apart: those with several values within a method and representation."""
    counts = frame.groupby(ROW)[SETTINGS].nunique(dropna=False)
    return [name for name in SETTINGS if (counts[name] > 1).any()]


def one_judge(panel: Panel, metrics: Mapping[str, Metric]) -> tuple[Panel, list[str]]:
    """Blank the metrics whose scores here come from several judges: those are never compared."""
    frame, notes = panel.frame.copy(), []
    for name, metric in metrics.items():
        if frame[f"{name}_judge"].nunique() > 1:
            frame[[q.name for q in metric.quantities]] = math.nan
            notes.append(f"{name}: these runs were scored by different models or settings; `python -m evaluation.score` "
                         "makes them comparable.")  # fmt: skip
    return replace(panel, frame=frame), notes


def method_table(panel: Panel, quantities: Sequence[Quantity], names: Mapping[str, Mapping[str, str]]) -> Table:
    """Methods over all prompts: mean ± std over prompts of the mean over seeds."""
    settings = split_settings(panel.frame)
    rows = [
        Row(_labels(key, [*ROW, *settings], names), [_cell(part, q, panel.prompts) for q in quantities], len(part))
        for key, part in _groups(panel.frame, settings)
    ]
    columns = {"method": "Method", "representation": "Asset"} | {name: LABELS[name] for name in settings}
    return Table(f"methods-{panel.slug}", "", columns, list(quantities), _ranked(rows))


def prompt_table(panel: Panel, quantities: Sequence[Quantity], names: Mapping[str, Mapping[str, str]]) -> Table:
    """The same for each prompt by itself; ranked within a prompt."""
    settings = split_settings(panel.frame)
    rows: list[Row] = []
    by_prompt = panel.frame.groupby(["prompt_id", "prompt"], sort=False)
    for (_, prompt), of_prompt in sorted(by_prompt, key=lambda item: natural(str(item[0][0]))):
        rows += _ranked([
            Row({"prompt": str(prompt)} | _labels(key, [*ROW, *settings], names),
                [_cell(part, q, 1) for q in quantities], len(part))
            for key, part in _groups(of_prompt, settings)
        ])  # fmt: skip
    columns = {"prompt": "Prompt", "method": "Method", "representation": "Asset"} | {name: LABELS[name] for name in settings}
    return Table(f"prompts-{panel.slug}", "", columns, list(quantities), rows)


def _groups(frame: pd.DataFrame, settings: Sequence[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The runs of each row, in the frame's order of methods, then by representation and settings."""
    order = {name: i for i, name in enumerate(frame["method"].cat.categories)}
    found = frame.groupby([*ROW, *settings], sort=True, dropna=False, observed=True)
    return sorted(((key, part) for key, part in found), key=lambda item: order[item[0][0]])  # type: ignore[index,misc]


def order_methods(frame: pd.DataFrame, first: Sequence[str]) -> pd.DataFrame:
    """Make the order of methods part of the frame: the given ones, then the others by name."""
    present = set(frame["method"])
    order = [name for name in first if name in present]
    return frame.assign(method=pd.Categorical(frame["method"], [*order, *sorted(present - set(order))], ordered=True))


def _labels(key: Sequence[Any], columns: Sequence[str], names: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The row's key in words."""
    return {
        column: names.get(column, {}).get(str(value), _text(value)) for column, value in zip(columns, key, strict=True)
    }


def _text(value: Any) -> str:
    if pd.isna(value):
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(runs: pd.DataFrame, quantity: Quantity, prompts: int) -> Cell:
    """A prompt counts as there when all its runs have a value."""
    grouped = runs.groupby("prompt_id", sort=False)[quantity.name]
    have = grouped.count() == grouped.size()
    means = grouped.mean()[have]
    cell = Cell(quantity, len(means), prompts)
    if not cell.complete:
        return cell
    if quantity.kind == "count":
        values = runs[quantity.name]
        return replace(cell, n=len(values), expected=len(values), count=round(values.sum()), mean=float(values.mean()))
    std = float(means.std(ddof=1)) if quantity.kind == "mean" and len(means) > 1 else math.nan
    return replace(cell, mean=float(means.mean()), std=std)


def _ranked(rows: list[Row]) -> list[Row]:
    """Mark the best and the second of each column among complete cells; a column with one value has no best."""
    marked = [list(row.cells) for row in rows]
    for i, first in enumerate(rows[0].cells if rows else ()):
        complete = [cells for cells in marked if cells[i].complete]
        order = sorted({cells[i].shown for cells in complete}, reverse=bool(first.quantity.higher_is_better))
        if first.quantity.higher_is_better is None or len(order) < 2:
            continue
        ranks = {order[0]: 1, order[1]: 2}
        for cells in complete:
            cells[i] = replace(cells[i], rank=ranks.get(cells[i].shown, 0))
    return [replace(row, cells=cells) for row, cells in zip(rows, marked, strict=True)]
