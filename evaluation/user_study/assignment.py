"""Assigns comparisons to raters: a balanced plan, determined by the study's key.

P prompts and K baselines give P·K cells. They form a cyclic sequence in which prompt and baseline change at
every step; each rater gets the next C cells. Hence, for any P, K, C and number of raters:

- each cell is shown equally often (± 1),
- a rater sees each prompt equally often (± 1), and no cell twice,
- our method is on the left in half of each cell's showings (± 1), and in about half per rater and baseline.

The presentation order is random, but every prompt appears once before any repeats.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.user_study.ordering import coin, shuffled


@dataclass(frozen=True)
class Comparison:
    """A prompt and a baseline (as indices), compared with our method."""

    prompt: int
    baseline: int
    ours_left: bool


def plan(
    prompts: int, baselines: int, raters: int, per_rater: int | None, key: str
) -> list[list[Comparison]]:
    """The comparisons of every rater in presentation order; `per_rater=None` gives all raters all cells."""
    cells = prompts * baselines
    count = min(per_rater or cells, cells)
    prompt_order = shuffled(range(prompts), key, "prompts")
    baseline_order = shuffled(range(baselines), key, "baselines")
    given: Counter[int] = Counter()
    first = coin(key, "left")
    result = []
    for rater in range(raters):
        places = [(rater * count + i) % cells for i in range(count)]
        mine = []
        for place in places:
            row, column = divmod(place, prompts)
            comparison = Comparison(
                prompt_order[column],
                baseline_order[(row + column) % baselines],
                (column // baselines + row + given[place] + first) % 2 == 0,
            )
            given[place] += 1
            mine.append(comparison)
        result.append(_present(mine, key, rater))
    return result


def _present(comparisons: Sequence[Comparison], key: str, rater: int) -> list[Comparison]:
    """Random order in rounds with each prompt at most once, and no repeat where two rounds meet."""
    rounds: dict[int, list[Comparison]] = defaultdict(list)
    seen: Counter[int] = Counter()
    for comparison in shuffled(comparisons, key, "cells", rater):
        rounds[seen[comparison.prompt]].append(comparison)
        seen[comparison.prompt] += 1
    ordered: list[Comparison] = []
    for number, cells in rounds.items():
        part = shuffled(cells, key, "order", rater, number)
        if ordered and len(part) > 1 and part[0].prompt == ordered[-1].prompt:
            part[0], part[-1] = part[-1], part[0]
        ordered += part
    return ordered


def places_of_checks(comparisons: int, checks: int, key: str, rater: int) -> list[int]:
    """The index of the comparison after each check: one per equal part of the session, never first."""
    places = []
    for i in range(checks):
        low = max(1, math.floor(i * comparisons / checks))
        high = max(low, math.floor((i + 1) * comparisons / checks))
        span = range(low, high + 1)
        places.append(shuffled(span, key, "check", rater, i)[0])
    return places
