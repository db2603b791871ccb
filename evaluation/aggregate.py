"""From the frame of runs to tables: what a row stands for, and means that are shown only when complete."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.metric import Metric, Quantity
from evaluation.runs import natural

Values = NDArray[np.floating[Any]]

#: What a row of the table is; the rest of a run's identity (prompt, seed) is averaged over.
ROW = ["method", "representation"]
#: Shown, and told apart, where it differs within a method and representation.
SETTINGS = ["guidance_scale", "init", "protocol", "steps", "views_per_step", "resolution", "variant"]
LABELS = {
    "guidance_scale": "Guidance", "init": "Init", "protocol": "Protocol", "steps": "Steps",
    "views_per_step": "Views a step", "resolution": "Resolution", "variant": "Settings",
}  # fmt: skip
#: What a run costs; declared here because it comes from the manifest, not from a metric.
COST: tuple[Quantity, ...] = (
    Quantity("minutes", "Minutes", "wall-clock minutes a run, from the manifest", None, 2, "average"),
    Quantity("unet_items", "UNet items", "UNet batch items a run, forward + backward", None, 0, "average"),
)
MORE_COST: tuple[Quantity, ...] = (
    Quantity(
        "tflop", "TFLOP", "10^12 floating-point operations of the prior a run, counted", None, 2, "average"
    ),
    Quantity(
        "peak_memory_gb",
        "Peak GB",
        "largest memory of a run (of the GPU where there is one)",
        None,
        2,
        "average",
    ),
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
    by_prompt: Values = field(
        default_factory=lambda: np.empty(0), compare=False, repr=False
    )  # in a fixed order

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
    key: dict[str, Any] = field(default_factory=dict)  # the labels as the frame has them


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
        present = len(self.frame[["prompt_id", "prompt"]].drop_duplicates())
        return present if self.own or math.isnan(declared) else max(present, int(declared))


def panels(frame: pd.DataFrame) -> list[Panel]:
    keys = ["prompt_set", "prior", "own_prompt"]
    if frame.empty:
        return []
    return [
        Panel(str(s), str(p), bool(own), part.copy()) for (s, p, own), part in frame.groupby(keys, sort=True)
    ]


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
            notes.append(
                f"{name}: these runs were scored by different models or settings; "
                "`python -m evaluation.score` makes them comparable."
            )
    return replace(panel, frame=frame), notes


def method_table(
    panel: Panel, quantities: Sequence[Quantity], names: Mapping[str, Mapping[str, str]]
) -> Table:
    """Methods over all prompts: mean ± std over prompts of the mean over seeds."""
    settings = split_settings(panel.frame)
    found = groups(_per_prompt(panel.frame, settings, quantities), settings)
    expected = _expected(panel.frame, quantities, panel.prompts)
    rows = [_row(key, part, settings, quantities, names, expected) for key, part in found]
    columns = {"method": "Method", "representation": "Representation"} | {
        name: LABELS[name] for name in settings
    }
    return Table(f"methods-{panel.slug}", "", columns, list(quantities), _ranked(rows))


def prompt_table(
    panel: Panel, quantities: Sequence[Quantity], names: Mapping[str, Mapping[str, str]]
) -> Table:
    """The same for each prompt by itself; ranked within a prompt."""
    settings = split_settings(panel.frame)
    by_prompt = _per_prompt(panel.frame, settings, quantities).groupby(["prompt_id", "prompt"], sort=False)
    rows: list[Row] = []
    for (_, prompt), of_prompt in sorted(by_prompt, key=lambda item: natural(str(item[0][0]))):
        expected = _expected(of_prompt, quantities, 1)
        found = [
            _row(key, part, settings, quantities, names, expected)
            for key, part in groups(of_prompt, settings)
        ]
        rows += [replace(row, labels={"prompt": str(prompt)} | row.labels) for row in _ranked(found)]
    columns = {"prompt": "Prompt", "method": "Method", "representation": "Representation"}
    columns |= {name: LABELS[name] for name in settings}
    return Table(f"prompts-{panel.slug}", "", columns, list(quantities), rows)


def _per_prompt(frame: pd.DataFrame, settings: Sequence[str], quantities: Sequence[Quantity]) -> pd.DataFrame:
    """For each prompt of a table's row: `runs`, and each quantity's mean over seeds and `<name>_sum`.

    Both are nan where a seed has no value.
    """
    names = [quantity.name for quantity in quantities]
    found = frame.groupby([*ROW, *settings, "prompt_id", "prompt"], sort=False, dropna=False, observed=True)
    size, there = found.size(), found[names].count()
    complete = there.eq(size, axis=0)
    sums = found[names].sum().where(complete).add_suffix("_sum")
    applies = [_applies(quantity) for quantity in quantities if quantity.partial]
    parts = [size.rename("runs"), found[names].mean().where(complete), sums, found[applies].min()]
    return pd.concat(parts, axis=1).reset_index()


def _applies(quantity: Quantity) -> str:
    return f"{quantity.name}_applies"


def _expected(frame: pd.DataFrame, quantities: Sequence[Quantity], prompts: int) -> dict[str, int]:
    """Over how many of so many prompts each quantity has to be known: all that it is defined for."""
    expected = dict.fromkeys((quantity.name for quantity in quantities), prompts)
    for quantity in quantities:
        if quantity.partial:
            never = frame.loc[frame[_applies(quantity)] == 0, ["prompt_id", "prompt"]]
            expected[quantity.name] -= len(never.drop_duplicates())
    return expected


def _row(
    key: Sequence[Any], prompts: pd.DataFrame, settings: Sequence[str], quantities: Sequence[Quantity],
    names: Mapping[str, Mapping[str, str]], expected: Mapping[str, int],
) -> Row:  # fmt: skip
    prompts = prompts.sort_values(["prompt_id", "prompt"])
    runs = int(prompts["runs"].sum())
    cells = [
        _cell(
            quantity,
            prompts[quantity.name].to_numpy(),
            prompts[f"{quantity.name}_sum"].to_numpy(),
            runs,
            expected[quantity.name],
        )
        for quantity in quantities
    ]
    columns = [*ROW, *settings]
    return Row(row_labels(key, columns, names), cells, runs, dict(zip(columns, key, strict=True)))


def groups(frame: pd.DataFrame, settings: Sequence[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The runs of each row, in the frame's order of methods, then by representation and settings."""
    order = {name: i for i, name in enumerate(frame["method"].cat.categories)}
    found = frame.groupby([*ROW, *settings], sort=True, dropna=False, observed=True)
    return sorted(((key, part) for key, part in found), key=lambda item: order[item[0][0]])  # type: ignore[index,misc]


def order_methods(frame: pd.DataFrame, first: Sequence[str]) -> pd.DataFrame:
    """Make the order of methods part of the frame: the given ones, then the others by name."""
    present = set(frame["method"])
    order = [name for name in first if name in present]
    return frame.assign(
        method=pd.Categorical(frame["method"], [*order, *sorted(present - set(order))], ordered=True)
    )


def row_labels(
    key: Sequence[Any], columns: Sequence[str], names: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """The row's key in words."""
    return {
        column: names.get(column, {}).get(str(value), _text(value))
        for column, value in zip(columns, key, strict=True)
    }


def _text(value: Any) -> str:
    if pd.isna(value):
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(quantity: Quantity, means: Values, sums: Values, runs: int, expected: int) -> Cell:
    """Over prompts: `means` [P] and `sums` [P] over seeds, nan where a prompt is not complete."""
    known = np.isfinite(means)
    cell = Cell(quantity, int(known.sum()), expected, by_prompt=means)
    if not cell.complete:
        return cell
    means, sums = means[known], sums[known]
    if quantity.kind == "count":
        count = round(float(sums.sum()))
        return replace(cell, n=runs, expected=runs, count=count, mean=count / runs)
    std = float(means.std(ddof=1)) if quantity.kind == "mean" and len(means) > 1 else math.nan
    return replace(cell, mean=float(means.mean()), std=std)


def _ranked(rows: list[Row]) -> list[Row]:
    """Mark the best and the second of each column among complete cells; where all are equal, none."""
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
