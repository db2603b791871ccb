"""Methods side by side: rows are prompts, columns methods (Figures 2, 3, 6 and 7 to 11 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from evaluation.figures.base import Data, Drawing, NothingToDraw
from evaluation.figures.contact_sheet import SETTINGS_SHORT
from evaluation.figures.pictures import Block, chosen_prompts, pick_runs, picture_grid, views_of
from evaluation.results.aggregate import SETTINGS, row_labels

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
    split: Sequence[str] = (), prompt_set: str | None = None, prior: str | None = None,
) -> Drawing:  # fmt: skip
    """Show each method's setting with the most prompts, and its first seed.

    Several settings with as many prompts have a column each; a note counts those with fewer.

    methods: in this order; null: external assets, then TraCe.
    prompts: ids in the prompt set; if none of them exists (another set), the first `rows` prompts.
    azimuths: degrees, 0 is the front; the nearest views are shown.
    split: settings, such as init, that get one column per value.
    """
    runs = pick_runs(data, experiment, methods, representation, prompt_set, prior)
    shown = methods or [*sorted(runs.loc[runs["external"].astype(bool), "method"].unique()), "trace"]
    chosen = chosen_prompts(runs, prompts, rows)
    ids = [prompt_id for prompt_id, _ in chosen]
    found = [column for method in shown for column in columns(runs, method, split, ids)]
    if methods is None and len(found) < 2:
        raise NothingToDraw(
            "There are no external assets among the runs: "
            "import one with `python -m trace_bench method=external method.asset=FILE`."
        )
    blocks = [[_block(data, column.runs, prompt_id, azimuths) for column in found] for prompt_id in ids]
    heads = [f"{data.method(column.method)}\n{column.detail}".rstrip() for column in found]
    figure = picture_grid([prompt for _, prompt in chosen], heads, blocks)
    kinds = ", ".join(data.representation(str(name)) for name in sorted(runs["representation"].unique()))
    priors = ", ".join(sorted(runs["prior"].unique()))
    there = list(dict.fromkeys(column.method for column in found))
    lacking = [data.method(method) for method in shown if method not in there]
    notes = [f"Not available yet: {', '.join(lacking)}."] if lacking else []
    for method in there:
        settings = runs[runs["method"] == method].groupby(SETTING, dropna=False).ngroups
        if others := settings - sum(column.method == method for column in found):
            word = "settings" if others > 1 else "setting"
            notes.append(f"{data.method(method)}: {others} other {word} with fewer prompts, not shown.")
    return Drawing(figure, f"{kinds}, prior {priors}; the first seed of each method.", notes=notes)


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


def _block(data: Data, runs: pd.DataFrame, prompt_id: str, azimuths: Sequence[float]) -> Block:
    found = runs[runs["prompt_id"] == prompt_id].sort_values(["seed", "folder"])
    if found.empty:
        return Block([], "not made")
    return Block(views_of(data, found.iloc[0], azimuths))
