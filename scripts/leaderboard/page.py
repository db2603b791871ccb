"""The blocks of docs/leaderboard.md and README.md, from the committed results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import isnan

import pandas as pd

from evaluation.gpteval3d.criteria import LABELS
from evaluation.results.names import display_names
from scripts.leaderboard.about import about
from scripts.leaderboard.cost import cost
from scripts.leaderboard.decided import pairs
from scripts.leaderboard.paper import paper
from scripts.leaderboard.profiles import profiles
from scripts.leaderboard.ranking import FIRST, best_first
from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import HELD_OUT, MAIN, STRATA
from scripts.leaderboard.sensitivity import NO_ROWS, guidance, steps_and_inits, view_phrases
from scripts.leaderboard.tables import Metrics, markdown, short, table
from scripts.leaderboard.verdicts import clip_validity

#: What the blocks hold before there is a file; readers do not see it.
EMPTY = "<!-- no rows yet -->"
_README = (FIRST, "soft_iou", "colour_error", "janus", "minutes", "minutes_shared")
_COMPARED = (*_README, "chamfer", "clip_score", "unet_items")


def standings(board: Board, metrics: Metrics) -> str:
    """Every method with its own budget, the truth and every wrong asset."""
    return markdown(table(board, MAIN, metrics, "all"))


def readme(board: Board, metrics: Metrics) -> str:
    """The short table of README.md."""
    return short(table(board, MAIN, metrics, "best"), _README)


def strata(board: Board, _metrics: Metrics) -> str:
    """Match of each method by the kind of object, and on prompts inside and outside of training."""
    frame = board.sections[MAIN]
    names = display_names(frame)["method"]
    numbers = pd.to_numeric(frame["prompt_id"])
    every = sorted(n for ids in STRATA.values() for n in ids)
    columns = {**STRATA, "trained": [n for n in every if n not in HELD_OUT], "held out": HELD_OUT}
    lines = [f"| Method | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for method in best_first(board):
        own = frame["method"] == method
        means = [frame.loc[own & numbers.isin(list(ids)), FIRST].mean() for ids in columns.values()]
        cells = ["—" if pd.isna(mean) else f"{mean:.3f}" for mean in means]
        lines.append(f"| {names.get(method, method)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def compared(name: str, board: Board, metrics: Metrics) -> str:
    """A section in which the methods are compared on the same prompts."""
    if name not in board.sections:
        return NO_ROWS
    return short(table(board, name, metrics, over="common_prompts"), _COMPARED)


def judges(board: Board, _metrics: Metrics) -> str:
    """How often the tiny CLIP names the better asset."""
    lines = [
        "| Judge | Criterion | Methods | Verdicts | Agreement with the truth |",
        "|---|---|---:|---:|---:|",
    ]
    methods, found = clip_validity(board.sections[MAIN])
    for row in found:
        share = row.agreement
        interval = "" if isnan(share.low) else f" [{100 * share.low:.0f}, {100 * share.high:.0f}]"
        agreement = "—" if isnan(share.value) else f"{100 * share.value:.0f} %{interval}"
        criterion = LABELS[row.criterion]
        lines.append(f"| {row.judge} | {criterion} | {len(methods)} | {row.verdicts:,} | {agreement} |")
    return "\n".join(lines)


BLOCKS: Mapping[tuple[str, str], Callable[[Board, Metrics], str]] = {
    ("docs/leaderboard.md", "leaderboard-about"): about,
    ("docs/leaderboard.md", "leaderboard"): standings,
    ("docs/leaderboard.md", "leaderboard-strata"): strata,
    ("docs/leaderboard.md", "leaderboard-pairs"): pairs,
    ("docs/leaderboard.md", "leaderboard-cost"): cost,
    ("docs/leaderboard.md", "leaderboard-profiles"): profiles,
    ("docs/leaderboard.md", "leaderboard-equal-work"): partial(compared, "equal_work"),
    ("docs/leaderboard.md", "leaderboard-nerf"): partial(compared, "nerf"),
    ("docs/leaderboard.md", "leaderboard-steps"): steps_and_inits,
    ("docs/leaderboard.md", "leaderboard-guidance"): guidance,
    ("docs/leaderboard.md", "leaderboard-janus"): view_phrases,
    ("docs/leaderboard.md", "leaderboard-judges"): judges,
    ("docs/leaderboard.md", "leaderboard-paper"): paper,
    ("README.md", "leaderboard"): readme,
}
