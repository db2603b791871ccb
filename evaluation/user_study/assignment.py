"""Who sees what: a balanced plan in which nothing but the key is random.

With P prompts and K baselines there are P·K cells. They are put in a cyclic sequence in which prompt and
baseline change at every place; a rater gets the next C cells of it. Hence, for any P, K, C and raters:

- each cell is given equally often (± 1),
- a rater sees each prompt equally often (± 1), and no cell twice,
- in each cell our method is on the left half of the times (± 1); for each rater and baseline, nearly so.

The order of presentation is random, with all prompts once before any comes again.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.user_study.ordering import coin, shuffled


@dataclass(frozen=True)
class Comparison:
    """A prompt, our method and a baseline; prompts and baselines by their place in a list."""

    prompt: int
    baseline: int
    ours_left: bool


def plan(
    prompts: int, baselines: int, raters: int, per_rater: int | None, key: str
) -> list[list[Comparison]]:
    """The comparisons of every rater as presented; `per_rater=None` shows everybody everything."""
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
    """A random order in rounds, each with a prompt at most once, and none twice running where rounds meet."""
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
    """Before which comparison each check comes: one in each of equal parts of the session, never first."""
    places = []
    for i in range(checks):
        low = max(1, math.floor(i * comparisons / checks))
        high = max(low, math.floor((i + 1) * comparisons / checks))
        span = range(low, high + 1)
        places.append(shuffled(span, key, "check", rater, i)[0])
    return places
