"""Methods side by side: rows are prompts, columns methods (Figures 2, 3, 6 and 7 to 11 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from evaluation.figures.base import Data, Drawing, NothingToDraw, said_of
from evaluation.figures.contact_sheet import SETTINGS_SHORT
from evaluation.figures.pictures import KINDS, Block, chosen_prompts, pick_runs, picture_grid, views_of
from evaluation.results.aggregate import SETTINGS, row_labels
from trace_bench.system.errors import TraceBenchError

ROWS = {"rgb": "renders", "normal": "normals", "alpha": "alpha mask"}
TEXTS = {
    "rgb": "Renders", "normal": "normals in world space as (n + 1) / 2", "alpha": "alpha, white is opaque",
}  # fmt: skip
SETTING = ["prior", "representation", *SETTINGS]  # what all runs of a column share


@dataclass(frozen=True)
class Column:
    """A method, plus the settings that distinguish it from its other columns."""

    method: str
    detail: str
    runs: pd.DataFrame


def draw(
    data: Data, experiment: str, methods: Sequence[str] | None = None, representation: str | None = None,
    prompts: Sequence[str | int] | None = None, rows: int = 6, azimuths: Sequence[float] = (35.0, 180.0),
    split: Sequence[str] = (), kinds: Sequence[str] = ("rgb",), heads: Sequence[Mapping[str, Any]] = (),
    prompt_set: str | None = None, prior: str | None = None,
) -> Drawing:  # fmt: skip
    """Show each method's setting with the most prompts, and its first seed.

    Several settings with as many prompts have a column each; a note counts those with fewer.

    methods: in this order; null: external assets, then TraCe.
    prompts: ids in the prompt set; if none of them exists (another set), the first `rows` prompts.
    azimuths: degrees, 0 is the front; the nearest views are shown.
    split: settings, such as init, that get one column per value.
    kinds: rgb, normal, alpha; a row of each per prompt.
    heads: names of columns, each with the values that its runs have; the first that fits is used.
    """
    if unknown := set(kinds) - set(KINDS):
        raise TraceBenchError(f"kinds={min(unknown)} is unknown: use {', '.join(KINDS)}.")
    runs = pick_runs(data, experiment, methods, representation, prompt_set, prior, split)
    shown = methods or [*sorted(runs.loc[runs["external"].astype(bool), "method"].unique()), "trace"]
    chosen = chosen_prompts(runs, prompts, rows)
    ids = [prompt_id for prompt_id, _ in chosen]
    found = [column for method in shown for column in columns(runs, method, split, ids)]
    if methods is None and len(found) < 2:
        raise NothingToDraw(
            "There are no external assets among the runs: "
            "import one with `python -m trace_bench method=external method.asset=FILE`."
        )
    rows_of = [(prompt_id, prompt, kind) for prompt_id, prompt in chosen for kind in kinds]
    blocks = [[_block(data, column.runs, i, azimuths, kind) for column in found] for i, _, kind in rows_of]
    labels = [prompt if kind == kinds[0] else ROWS[kind] for _, prompt, kind in rows_of]
    figure = picture_grid(labels, [_head(data, column, heads) for column in found], blocks)
    drawn = pd.concat([column.runs[column.runs["prompt_id"].isin(ids)] for column in found])
    firsts = drawn.sort_values(["seed", "folder"]).drop_duplicates([*SETTING, "method", "prompt_id"])
    there = list(dict.fromkeys(column.method for column in found))
    lacking = [data.method(method) for method in shown if method not in there]
    notes = [f"Not available yet: {', '.join(lacking)}."] if lacking else []
    for method in there:
        settings = runs[runs["method"] == method].groupby(SETTING, dropna=False).ngroups
        if others := settings - sum(column.method == method for column in found):
            word = "settings" if others > 1 else "setting"
            notes.append(f"{data.method(method)}: {others} other {word} with fewer prompts, not shown.")
    turns = ", ".join(f"{azimuth:g}°" for azimuth in azimuths)
    caption = f"{'; '.join(TEXTS[kind] for kind in kinds)}, "
    caption += f"at azimuth {turns} (0° is the front), on white; the lowest seed of each method. "
    return Drawing(figure, caption + said_of(data, firsts), notes=notes)


def _head(data: Data, column: Column, heads: Sequence[Mapping[str, Any]]) -> str:
    """The heading of a column: its own name if one fits, else the method and what distinguishes it."""
    first = column.runs.iloc[0]
    for head in heads:
        if all(key == "name" or first.get(key) == value for key, value in head.items()):
            return f"{head['name']}\n{column.detail}".rstrip()
    return f"{data.method(column.method)}\n{column.detail}".rstrip()


def columns(runs: pd.DataFrame, method: str, split: Sequence[str], ids: Sequence[str]) -> list[Column]:
    """One column per value of `split` in the method's runs, or several if settings cover as many prompts.

    Each says what distinguishes it. Empty if the method has no runs.
    """
    runs = runs[runs["method"] == method]
    telling = [name for name in split if runs[name].nunique(dropna=False) > 1]
    parts = [part for _, part in runs.groupby(telling, dropna=False, sort=True)] if telling else [runs]
    found = []
    for part in parts if len(runs) else ():
        best = _best_settings(part, ids)
        differing = [name for name in SETTING if pd.concat(best)[name].nunique(dropna=False) > 1]
        names = [*telling, *(name for name in differing if name not in telling)]
        found += [Column(method, _detail(one, names), one) for one in best]
    return found


def _detail(runs: pd.DataFrame, names: Sequence[str]) -> str:
    """The values of these settings, which all the runs share."""
    texts = row_labels(list(runs.iloc[0][list(names)]), names, {})
    return ", ".join(f"{SETTINGS_SHORT.get(name, '')} {text}".strip() for name, text in texts.items())


def _best_settings(runs: pd.DataFrame, ids: Sequence[str]) -> list[pd.DataFrame]:
    """The runs of each setting that covers most of the shown prompts, then most of all prompts."""

    def covers(part: pd.DataFrame) -> tuple[int, int]:
        return part.loc[part["prompt_id"].isin(ids), "prompt_id"].nunique(), part["prompt_id"].nunique()

    parts = [part for _, part in runs.groupby(SETTING, dropna=False, sort=True)]
    most = max(map(covers, parts))
    return [part for part in parts if covers(part) == most]


def _block(data: Data, runs: pd.DataFrame, prompt_id: str, azimuths: Sequence[float], kind: str) -> Block:
    found = runs[runs["prompt_id"] == prompt_id].sort_values(["seed", "folder"])
    if found.empty:
        return Block([], "not made")
    return Block(views_of(data, found.iloc[0], azimuths, kind), "none")
