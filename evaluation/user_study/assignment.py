"""Assigns comparisons to raters: a balanced plan, determined by the study's key.

P prompts and K baselines give P·K cells. They form a cyclic sequence in which prompt and baseline change at
every step; each rater gets the next C cells. Hence, for any P, K, C and number of raters:

- each cell is shown equally often (± 1),
- a rater sees each prompt equally often (± 1), and no cell twice,
- our method is on the left as often as on the right (± 1; exactly, if the number is even) in each cell, for
  each baseline, for each rater and for each rater's baseline; in each cell also after any number of raters.

The presentation order is random, but every prompt appears once before any repeats.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
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
    shown = []
    for i in range(raters * count):
        row, column = divmod(i % cells, prompts)
        shown.append((i // count, prompt_order[column], baseline_order[(row + column) % baselines]))
    sessions: list[list[Comparison]] = [[] for _ in range(raters)]
    for (rater, prompt, baseline), left in zip(shown, _sides(shown, key), strict=True):
        sessions[rater].append(Comparison(prompt, baseline, left))
    return [_present(mine, key, rater) for rater, mine in enumerate(sessions)]


def _sides(shown: Sequence[tuple[int, int, int]], key: str) -> list[bool]:
    """Whether our method is on the left, for each (rater, prompt, baseline).

    Each comparison is paired with one of its cell or else of its baseline, and with one of its rater's
    baseline or else of its rater. The two of a pair have different sides. Pairs of both kinds alternate along
    a path, so every cycle is even and no pair contradicts the others.
    """
    partners = (
        _partners([((prompt, baseline), baseline) for _, prompt, baseline in shown]),
        _partners([((rater, baseline), rater) for rater, _, baseline in shown]),
    )
    sides: dict[int, bool] = {}
    for start in range(len(shown)):
        ahead = [] if start in sides else [(start, coin(key, "left", start) == 1)]
        while ahead:
            i, left = ahead.pop()
            if i not in sides:
                sides[i] = left
                ahead += [(of[i], not left) for of in partners if i in of]
    return [sides[i] for i in range(len(shown))]


def _partners(groups: Sequence[tuple[Hashable, Hashable]]) -> dict[int, int]:
    """Pair successive items of the same inner group, then those left over in the same outer group."""
    partner: dict[int, int] = {}
    single = list(range(len(groups)))
    for level in (0, 1):
        waiting: dict[Hashable, int] = {}
        for i in single:
            if (other := waiting.pop(groups[i][level], None)) is None:
                waiting[groups[i][level]] = i
            else:
                partner[i], partner[other] = other, i
        single = list(waiting.values())
    return partner


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
