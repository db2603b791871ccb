"""How many prompts and seeds decide a difference, from measured variances: a block of docs/statistics.md."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.statistics.power import (
    POWER,
    Spread,
    prompts_needed,
    seeds_needed,
    smallest_difference,
    spread,
)
from scripts.leaderboard.rows import FILE, loads
from scripts.leaderboard.sections import MAIN
from scripts.results.coverage import SCORES
from scripts.results.document import paragraph
from scripts.results.workshop import Workshop

Values = NDArray[np.floating[Any]]
#: Column in the leaderboard, in toy_scores.csv, a difference to decide, its name.
NUMBERS = (("soft_iou", "iou", 0.01, "0.01 IoU"), ("colour_error", "delta_e", 1.0, "1 ΔE"))
SEEDS = (1, 2, 4)
LEAST_METHODS = 3  # of fewer there is no median pair


def measured(shop: Workshop) -> dict[str, Values]:
    """Scores [prompts, methods, seeds] of each of NUMBERS: the leaderboard's or, while it has few methods,
    those of one seed in toy_scores.csv."""
    path = shop.folder / FILE
    if path.is_file():
        rows = loads(path.read_text(encoding="utf-8"), shop.metrics).sections[MAIN]
        if rows["method"].nunique() >= LEAST_METHODS:
            return {column: cube(rows, column, "prompt_id") for column, *_ in NUMBERS}
    rows = pd.read_csv(SCORES).assign(seed=0)
    return {column: cube(rows, older, "prompt") for column, older, *_ in NUMBERS}


def cube(rows: pd.DataFrame, column: str, prompt: str) -> Values:
    """[prompts, methods, seeds], without the prompts on which a run has no such number."""
    table = rows.pivot(index=prompt, columns=["method", "seed"], values=column).sort_index(axis=1).dropna()
    seeds = rows["seed"].nunique()
    return table.to_numpy(float).reshape(len(table), -1, seeds)


def spreads(scores: Values) -> list[Spread]:
    """Of every pair of methods, the narrowest first; with one seed, the part of the seeds is unknown (nan)
    and contained in the part of the prompts."""
    pairs = [scores[:, i] - scores[:, j] for i, j in combinations(range(scores.shape[1]), 2)]
    if scores.shape[2] > 1:
        return sorted((spread(pair) for pair in pairs), key=lambda parts: parts.std(1))
    return sorted((Spread(float(d.std(ddof=1)), math.nan) for d in pairs), key=lambda parts: parts.prompts)


def prompts_needed_block(shop: Workshop, _old: str) -> str:
    """docs/statistics.md: prompts for a difference of 0.01 IoU and of 1 ΔE, with one seed and more."""
    scores = measured(shop)
    prompts, methods, seeds = scores[NUMBERS[0][0]].shape
    pairs = methods * (methods - 1) // 2
    several = seeds > 1
    heads = ["difference", "std between prompts", "std between seeds", *map(_prompts_with, SEEDS)]
    heads += [f"{_prompts_with(1)}, {pairs} comparisons", f"seeds on {prompts} prompts"]
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    least = []
    for column, _, difference, words in NUMBERS:
        parts = spreads(scores[column])
        for which, one in (("median pair", parts[len(parts) // 2]), ("widest pair", parts[-1])):
            lines.append(f"| {words}, {which} | {' | '.join(_cells(one, difference, prompts, pairs))} |")
        middle = parts[len(parts) // 2]
        std = middle.std(seeds) if several else middle.prompts
        least.append(f"{smallest_difference(std, prompts):.2g} {words.split()[1]}")
    source = (
        f"Measured in `{FILE}`: {methods} methods on {prompts} prompts, {seeds} seeds each."
        if several
        else f"Measured in `scripts/results/toy_scores.csv`, with an earlier prior: {methods} methods on "
        f"{prompts} prompts with one seed, so the spread between prompts contains that between seeds."
    )
    found = (
        f"The chance to decide is {100 * POWER:.0f} %. With these {prompts} prompts and {_seeds(seeds)}, the "
        f"median pair is decided from a difference of {' or '.join(least)} on, without Holm's correction."
    )
    return f"{paragraph(source)}\n\n" + "\n".join(lines) + f"\n\n{paragraph(found)}"


def _cells(parts: Spread, difference: float, prompts: int, pairs: int) -> list[str]:
    if math.isnan(parts.seeds):
        one, std = prompts_needed(difference, parts.prompts), parts.prompts
        return [f"{std:.3g}", "—", f"{one:,}", *["—"] * (len(SEEDS) - 1),
                f"{prompts_needed(difference, std, pairs):,}", "—"]  # fmt: skip
    counts = [prompts_needed(difference, parts.std(n)) for n in SEEDS]
    counts.append(prompts_needed(difference, parts.std(1), pairs))
    seeds = seeds_needed(difference, parts, prompts)
    return [f"{parts.prompts:.3g}", f"{parts.seeds:.3g}", *(f"{n:,}" for n in counts),
            "no number" if seeds is None else f"{seeds:,}"]  # fmt: skip


def _prompts_with(seeds: int) -> str:
    return f"prompts, {_seeds(seeds)}"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
