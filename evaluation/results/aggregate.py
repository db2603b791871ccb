"""Aggregates the frame of runs into tables; a mean is shown only if complete."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.metrics.base import Metric, Quantity
from evaluation.statistics.multiple import can_decide, holm
from evaluation.statistics.paired import ALPHA, FEWEST, p_value
from trace_bench.run_folder.reading import natural

Values = NDArray[np.floating[Any]]

#: Letter at a number that the row's method maximised.
OPTIMISED = "r"
#: A table row; the rest of a run's identity (prompt, seed) is averaged over.
ROW = ["method", "representation"]
#: Separate rows if these differ within a method and representation.
SETTINGS = ["guidance_scale", "init", "protocol", "steps", "views_per_step", "resolution", "variant"]
LABELS = {
    "guidance_scale": "Guidance", "init": "Init", "protocol": "Protocol", "steps": "Steps",
    "views_per_step": "Views a step", "resolution": "Resolution", "variant": "Settings",
}  # fmt: skip
#: Cost of a run; declared here because it comes from the manifest, not from a metric.
COST: tuple[Quantity, ...] = (
    Quantity(
        "minutes",
        "Minutes",
        "init, distilling and rendering per run, without loading",
        None,
        2,
        "average",
    ),
    Quantity("unet_items", "UNet items", "UNet batch items per run, forward + backward", None, 0, "average"),
)
#: Instead of the minutes of a run that was alone; the two are never averaged.
SHARED = Quantity(
    "minutes_shared", "Min. shared",
    "a run's share of the minutes of a process that made several side by side (lanes)", None, 2, "average",
)  # fmt: skip
#: Apart from the cost of a run, because it depends on which run came first in its process.
ONCE = Quantity(
    "minutes_of_loading", "Loading",
    "minutes of loading and compiling, paid by the first run of a process for all; mean over runs", None, 2,
    "average",
)  # fmt: skip
MORE_COST: tuple[Quantity, ...] = (
    Quantity(
        "tflop", "TFLOP", "10^12 floating-point operations of prior and reward per run", None, 2, "average"
    ),
    Quantity(
        "peak_memory_gb",
        "Peak GB",
        "peak memory of a run (GPU memory if it used a GPU)",
        None,
        2,
        "average",
    ),
)
#: Of runs on a GPU.
SPEED: tuple[Quantity, ...] = (
    Quantity("tflop_per_s", "TFLOP/s", "the TFLOP by the seconds of distilling", None, 1, "average"),
    Quantity("mfu", "MFU", "TFLOP/s by the peak that the GPU's maker publishes", None, 2, "average"),
)


def costs(frame: pd.DataFrame) -> tuple[Quantity, ...]:
    """COST, with the minutes alone, those shared, or both, as the runs have them."""
    if "minutes_shared" not in frame or not frame["minutes_shared"].notna().any():
        return COST
    return (*COST[: int(frame["minutes"].notna().any())], SHARED, *COST[1:])


@dataclass(frozen=True)
class Cell:
    """One number of a table over `n` of `expected` prompts (or runs, for a count)."""

    quantity: Quantity
    n: int
    expected: int
    mean: float = math.nan  # for a count: k / n
    std: float = math.nan  # over prompts, ddof 1
    count: int = 0  # the k of a count
    rank: int = 0  # 1 decided best, 2 best number but not decided, 0 neither
    optimised: bool = False  # the row's method maximised it, so it has no rank and is compared with none
    marks: str = ""  # letters of the notes about it
    by_prompt: Mapping[tuple[str, str], float] = field(
        default_factory=dict, compare=False, repr=False
    )  # (prompt id, prompt) -> mean over seeds

    @property
    def complete(self) -> bool:
        return self.n == self.expected and self.n > 0

    @property
    def comparable(self) -> bool:
        """Whether the mean may be compared with those of other rows.

        A number that only some assets have needs some of them: one asset with a front says little about the
        Janus problem.
        """
        few = self.quantity.partial and self.n < FEWEST
        return self.complete and not self.optimised and not few

    @property
    def shown(self) -> float:
        """The mean as printed, so that equal numbers get equal ranks."""
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
    """The runs of one table: one prompt set, one prior."""

    prompt_set: str
    prior: str
    own: bool  # custom prompts, which belong to no set
    frame: pd.DataFrame
    common: bool = False  # only the prompts that all rows have

    @property
    def title(self) -> str:
        return "own prompts" if self.own else self.prompt_set

    @property
    def slug(self) -> str:
        return f"{'own-prompts' if self.own else self.prompt_set}-{self.prior}"

    @property
    def prompts(self) -> int:
        """Number of prompts of a complete row: the size of the set, or of all rows' prompts together."""
        declared = self.frame["prompts_in_set"].max()
        present = len(self.frame[["prompt_id", "prompt"]].drop_duplicates())
        if self.common or self.own or math.isnan(declared):
            return present
        return max(present, int(declared))

    @property
    def prompts_in_set(self) -> int:
        """Size of the set, also where the table is over fewer prompts."""
        return replace(self, common=False).prompts


def panels(frame: pd.DataFrame) -> list[Panel]:
    keys = ["prompt_set", "prior", "own_prompt"]
    if frame.empty:
        return []
    return [
        Panel(str(s), str(p), bool(own), part.copy()) for (s, p, own), part in frame.groupby(keys, sort=True)
    ]


def on_common_prompts(panel: Panel) -> Panel:
    """The panel on the prompts that all its rows have; no runs if there is no such prompt."""
    frame = panel.frame
    rows = frame.groupby([*ROW, *split_settings(frame)], dropna=False, observed=True).ngroup()
    rows_of = rows.groupby([frame["prompt_id"], frame["prompt"]]).transform("nunique")
    return replace(panel, frame=frame[rows_of == rows.nunique()].copy(), common=True)


def choose_prompts(panel: Panel, over: str) -> Panel:
    """The panel over its set (`all_prompts`), or over the prompts that all its rows have (`common_prompts`).

    `auto` takes the common prompts if no row has the whole set, so that a sweep of some prompts gives means.
    """
    common = on_common_prompts(panel)
    if over == "common_prompts":
        return common
    counts = panel.frame.drop_duplicates([*ROW, *split_settings(panel.frame), "prompt_id", "prompt"])
    most = counts.groupby([*ROW, *split_settings(panel.frame)], dropna=False, observed=True).size().max()
    is_incomplete = over == "auto" and most < panel.prompts
    return common if is_incomplete and len(common.frame) else panel


def split_settings(frame: pd.DataFrame) -> list[str]:
    """The settings that split rows: those with several values within a method and representation."""
    counts = frame.groupby(ROW)[SETTINGS].nunique(dropna=False)
    return [name for name in SETTINGS if (counts[name] > 1).any()]


def one_judge(panel: Panel, metrics: Mapping[str, Metric]) -> tuple[Panel, list[str]]:
    """Blank metrics whose scores come from several judges, because those are never compared."""
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
    """One row per method: mean ± std over prompts of the mean over seeds."""
    settings = split_settings(panel.frame)
    lines = _lines(panel.frame, settings, quantities)
    rows = []
    for i in range(len(lines.keys)):
        at = np.nonzero(lines.group == i)[0]
        there = {lines.prompts[k] for k in at}
        absent = np.array([k for k, prompt in enumerate(lines.prompts) if prompt not in there], int)
        undefined = lines.undefined(at) + lines.undefined(absent)
        rows.append(lines.row(at, quantities, names, panel.prompts - undefined))
    columns = {"method": "Method", "representation": "Representation"} | {
        name: LABELS[name] for name in settings
    }
    return Table(f"methods-{panel.slug}", "", columns, list(quantities), _ranked(rows))


def prompt_table(
    panel: Panel, quantities: Sequence[Quantity], names: Mapping[str, Mapping[str, str]]
) -> Table:
    """The same per prompt; ranked within each prompt."""
    settings = split_settings(panel.frame)
    lines = _lines(panel.frame, settings, quantities)
    by_prompt: dict[tuple[str, str], list[int]] = {}
    for i, prompt in enumerate(lines.prompts):
        by_prompt.setdefault(prompt, []).append(i)
    rows: list[Row] = []
    for key in sorted(by_prompt, key=lambda prompt: natural(prompt[0])):
        at = np.array(by_prompt[key])
        found = [lines.row(one, quantities, names, 1 - lines.undefined(one)) for one in at[:, None]]
        rows += [replace(row, labels={"prompt": key[1]} | row.labels) for row in _ranked(found)]
    columns = {"prompt": "Prompt", "method": "Method", "representation": "Representation"}
    columns |= {name: LABELS[name] for name in settings}
    return Table(f"prompts-{panel.slug}", "", columns, list(quantities), rows)


@dataclass(frozen=True)
class _Lines:
    """N lines, one per table row and prompt, sorted by row and prompt; Q quantities."""

    columns: list[str]  # the columns of a key
    keys: list[tuple[Any, ...]]  # of the rows
    group: NDArray[np.integer[Any]]  # [N] row index
    prompts: list[tuple[str, str]]  # (prompt_id, prompt) of each line
    runs: NDArray[np.integer[Any]]  # [N]
    means: Values  # [N, Q] over seeds; nan if a seed has no value
    sums: Values  # [N, Q]
    applies: Values  # [N, Q] 0 if the quantity is undefined for the prompt
    optimised: list[frozenset[str]]  # of the rows: names of the quantities that its method maximised

    def undefined(self, at: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        """[Q] number of prompts in these lines for which every line has the quantity undefined."""
        count = np.zeros(self.applies.shape[1], int)
        for prompt in {self.prompts[k] for k in at}:
            mine = at[[self.prompts[k] == prompt for k in at]]
            count += (self.applies[mine] == 0).all(axis=0)
        return count

    def row(
        self, at: NDArray[np.integer[Any]], quantities: Sequence[Quantity],
        names: Mapping[str, Mapping[str, str]], expected: NDArray[np.integer[Any]],
    ) -> Row:  # fmt: skip
        """The table row of these lines."""
        runs, key = int(self.runs[at].sum()), self.keys[self.group[at[0]]]
        prompts, cells, optimised = [self.prompts[k] for k in at], [], self.optimised[self.group[at[0]]]
        for q, quantity in enumerate(quantities):
            defined = int(self.runs[at][self.applies[at, q] != 0].sum())  # runs that a count is of
            cell = _cell(quantity, self.means[at, q], self.sums[at, q], defined, int(expected[q]), prompts)
            is_own = quantity.name in optimised
            cells.append(replace(cell, optimised=True, marks=OPTIMISED) if is_own and cell.n else cell)
        labels = row_labels(key, self.columns, names)
        return Row(labels, cells, runs, dict(zip(self.columns, key, strict=True)))


def _lines(frame: pd.DataFrame, settings: Sequence[str], quantities: Sequence[Quantity]) -> _Lines:
    """Average over seeds."""
    columns, names = [*ROW, *settings], [quantity.name for quantity in quantities]
    found = frame.groupby([*columns, "prompt_id", "prompt"], sort=False, dropna=False, observed=True)
    size, there = found.size(), found[names].count()
    complete = there.eq(size, axis=0)
    applies = {f"{name}_applies": f"{name}_applies" in frame for name in names}
    defined = found[[name for name, known in applies.items() if known]].min()
    sums = found[names].sum().where(complete).add_suffix("_sum")
    means = found[names].mean().where(complete)
    lines = pd.concat([size.rename("runs"), means, sums, defined], axis=1).reset_index()
    rows = lines.groupby(columns, sort=True, dropna=False, observed=True)
    lines = lines.assign(row=rows.ngroup()).sort_values(["row", "prompt_id", "prompt"])
    firsts = lines.drop_duplicates("row")[columns]
    return _Lines(
        columns=columns,
        keys=list(firsts.itertuples(index=False, name=None)),
        group=lines["row"].to_numpy(),
        prompts=[
            (str(i), str(prompt)) for i, prompt in zip(lines["prompt_id"], lines["prompt"], strict=True)
        ],
        runs=lines["runs"].to_numpy(),
        means=lines[names].to_numpy(float),
        sums=lines[[f"{name}_sum" for name in names]].to_numpy(float),
        applies=lines.reindex(columns=list(applies)).to_numpy(float),
        optimised=_optimised(frame, columns, firsts),
    )


def _optimised(frame: pd.DataFrame, columns: list[str], rows: pd.DataFrame) -> list[frozenset[str]]:
    """For each row of a table, the quantities that the method of any of its runs maximised."""
    if "optimised" not in frame or frame["optimised"].dropna().eq("").all():
        return [frozenset()] * len(rows)
    words = frame.groupby(columns, sort=False, dropna=False, observed=True)["optimised"]
    joined = words.agg(lambda texts: " ".join(texts.dropna())).reset_index()
    found = rows.merge(joined, on=columns, how="left")["optimised"]
    return [frozenset(str(text).split()) for text in found]


def optimised_note(cells: Sequence[Cell]) -> list[str]:
    """What the letter at optimised numbers means, if there are some."""
    labels = list(dict.fromkeys(cell.quantity.label for cell in cells if OPTIMISED in cell.marks))
    if not labels:
        return []
    why = "the method maximises this number or one of its kind, so it has no rank and is compared with no row"
    return [f"({OPTIMISED}) {', '.join(labels)}: {why}."]


def groups(frame: pd.DataFrame, settings: Sequence[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The runs of each row, sorted by the frame's method order, representation and settings."""
    order = {name: i for i, name in enumerate(frame["method"].cat.categories)}
    found = frame.groupby([*ROW, *settings], sort=True, dropna=False, observed=True)
    return sorted(((key, part) for key, part in found), key=lambda item: order[item[0][0]])  # type: ignore[index,misc]


def order_methods(frame: pd.DataFrame, first: Sequence[str]) -> pd.DataFrame:
    """Store the method order in the frame: the given ones first, then the others by name."""
    present = set(frame["method"])
    order = [name for name in first if name in present]
    return frame.assign(
        method=pd.Categorical(frame["method"], [*order, *sorted(present - set(order))], ordered=True)
    )


def row_labels(
    key: Sequence[Any], columns: Sequence[str], names: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """The display texts of a row's key."""
    return {
        column: names.get(column, {}).get(str(value), _text(value))
        for column, value in zip(columns, key, strict=True)
    }


def _text(value: Any) -> str:
    if pd.isna(value):
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(
    quantity: Quantity, means: Values, sums: Values, runs: int, expected: int, prompts: list[tuple[str, str]]
) -> Cell:
    """Aggregate over prompts; `means` [P] and `sums` [P] are over seeds, nan for incomplete prompts."""
    known = np.isfinite(means)
    by_prompt = {prompt: float(mean) for prompt, mean in zip(prompts, means, strict=True)}
    cell = Cell(quantity, int(known.sum()), expected, by_prompt=by_prompt)
    if not cell.complete:
        return cell
    means, sums = means[known], sums[known]
    if quantity.kind == "count":
        count = round(float(sums.sum()))
        return replace(cell, n=runs, expected=runs, count=count, mean=count / runs)
    std = float(means.std(ddof=1)) if quantity.kind == "mean" and len(means) > 1 else math.nan
    return replace(cell, mean=float(means.mean()), std=std)


def on_same_prompts(a: Cell, b: Cell) -> tuple[Values, Values]:
    """The values of two cells on the prompts that both have, in the same order."""
    shared = [prompt for prompt in a.by_prompt if prompt in b.by_prompt]
    return np.array([a.by_prompt[p] for p in shared]), np.array([b.by_prompt[p] for p in shared])


def _ranked(rows: list[Row]) -> list[Row]:
    """Mark the best comparable cell of each column: 1 if it is decidedly better than every other, else 2.

    Decided: p <= .05 by Holm's correction over all pairs of the column. No mark if all numbers are equal.
    """
    marked = [list(row.cells) for row in rows]
    for i, first in enumerate(rows[0].cells if rows else ()):
        complete = [cells for cells in marked if cells[i].comparable]
        order = sorted({cells[i].shown for cells in complete}, reverse=bool(first.quantity.higher_is_better))
        if first.quantity.higher_is_better is None or len(order) < 2:
            continue
        best = [cells for cells in complete if cells[i].shown == order[0]]
        rank = 1 if len(best) == 1 and _beats_all([cells[i] for cells in complete], best[0][i]) else 2
        for cells in best:
            cells[i] = replace(cells[i], rank=rank)
    return [replace(row, cells=cells) for row, cells in zip(rows, marked, strict=True)]


def _beats_all(cells: Sequence[Cell], best: Cell) -> bool:
    """Whether `best` is decidedly better than each other cell, on the prompts that both have."""
    pairs = list(combinations(cells, 2))
    differences = [np.subtract(*on_same_prompts(a, b)) for a, b in pairs]
    known = [difference[np.isfinite(difference)] for difference in differences]
    if not can_decide(max(map(len, known)), len(pairs)):
        return False
    adjusted = holm([p_value(difference) for difference in known])
    sign = 1.0 if best.quantity.higher_is_better else -1.0
    return all(
        p <= ALPHA and len(difference) >= FEWEST
        # A partial number can be the lowest over its own prompts, and not on those that both have.
        and sign * (1.0 if a is best else -1.0) * difference.mean() > 0.0
        for (a, b), difference, p in zip(pairs, known, adjusted, strict=True)
        if a is best or b is best
    )  # fmt: skip
