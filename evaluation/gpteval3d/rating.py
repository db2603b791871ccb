"""Turns games into result rows: Elo, interval and game counts of every contestant."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from evaluation.gpteval3d.comparisons import Game
from evaluation.gpteval3d.elo import START, Array, cluster_matrices, fit
from evaluation.gpteval3d.intervals import Intervals, intervals
from evaluation.statistics.multiple import holm
from evaluation.statistics.paired import ALPHA, FEWEST
from trace_bench.system.errors import TraceBenchError


@dataclass(frozen=True)
class Rules:
    """How games become Elo."""

    draw: float = 1.0  # wins per draw for both sides; 1 as in the published code, 1/2 is another convention


@dataclass(frozen=True)
class Rating:
    """One contestant and criterion.

    If only one end of the interval is None, it is open there: the contestant never lost, or never won.
    """

    contestant: str
    criterion: str
    elo: float | None
    ci_low: float | None
    ci_high: float | None
    comparisons: int
    wins: int
    draws: int
    losses: int
    frozen: bool
    regularised: bool
    note: str | None
    beats: tuple[str, ...] = ()  # decided over all pairs of this criterion, by Holm's correction

    def row(self) -> dict[str, object]:
        return asdict(self)


def rate(
    games: Sequence[Game],
    frozen: Mapping[str, float],
    criterion: str,
    contestants: Sequence[str],
    rules: Rules,
) -> list[Rating]:
    """Rate all contestants on one criterion; the scores of `frozen` stay fixed."""
    names = list(dict.fromkeys([*frozen, *contestants, *(name for g in games for name in (g.left, g.right))]))
    index = {name: i for i, name in enumerate(names)}
    triples = [(index[g.left], index[g.right], float(g.result)) for g in games]
    labels = [g.cluster if g.cluster is not None else f"\0{k}" for k, g in enumerate(games)]
    order = {label: c for c, label in enumerate(dict.fromkeys(labels))}
    clusters = np.array([order[label] for label in labels], int)
    matrices = cluster_matrices(
        triples, len(names), clusters, max(1, len(order)), [g.weight for g in games], rules.draw
    )
    held = {index[name]: score for name, score in frozen.items()}
    found = fit(matrices.sum(axis=0)[None], held)
    spread = intervals(matrices, held)
    beaten = _beaten(names, found.elo[0], spread)
    tally = _tally(games)
    notes = _notes(bool(found.regularised[0]), len(order))
    ratings = []
    for name, i in index.items():
        elo = float(found.elo[0, i])
        undefined = math.isnan(elo)
        held_here = name in frozen
        why = "no chain of comparisons links it to a frozen score" if undefined else None
        ratings.append(
            Rating(
                name, criterion, None if undefined else elo, _number(spread.low[i]), _number(spread.high[i]),
                sum(tally[name].values()), tally[name]["win"], tally[name]["draw"], tally[name]["loss"],
                held_here, bool(found.regularised[0]) and not held_here,
                why if undefined or held_here else notes, beaten[name],
            )
        )  # fmt: skip
    return ratings


def _beaten(names: Sequence[str], elo: Array, spread: Intervals) -> dict[str, tuple[str, ...]]:
    """Whom each contestant beats: pairs that Holm's correction over all pairs decides."""
    pairs = [
        (i, j) for i, j in itertools.combinations(range(len(names)), 2) if not math.isnan(spread.p[i, j])
    ]
    adjusted = holm([float(spread.p[pair]) for pair in pairs])
    found: dict[str, list[str]] = {name: [] for name in names}
    for (i, j), p in zip(pairs, adjusted, strict=True):
        if p <= ALPHA:
            better, worse = (i, j) if elo[i] > elo[j] else (j, i)
            found[names[better]].append(names[worse])
    return {name: tuple(sorted(beaten)) for name, beaten in found.items()}


def _notes(regularised: bool, clusters: int) -> str | None:
    """Notes for readers of a free score."""
    notes = []
    if regularised:
        notes.append("some contestants never lost or never won, so every pair got half a win for both sides")
    if clusters < FEWEST:
        notes.append(f"no interval from fewer than {FEWEST} prompts")
    return "; ".join(notes) or None


def _tally(games: Sequence[Game]) -> dict[str, Counter[str]]:
    """Wins, draws and losses by name."""
    words = {-1: ("win", "loss"), 0: ("draw", "draw"), 1: ("loss", "win")}
    tally: dict[str, Counter[str]] = defaultdict(Counter)
    for game in games:
        for name, word in zip((game.left, game.right), words[game.result], strict=True):
            tally[name][word] += 1
    return tally


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def pick_anchor(names: Sequence[str], wanted: str | None) -> str:
    """The contestant with the fixed score: the wanted one, else dreamfusion or sds if present."""
    there = ", ".join(names)
    if wanted is not None:
        if wanted not in names:
            raise TraceBenchError(f"anchor={wanted} has no comparisons: use one of {there}.")
        return wanted
    for name in ("dreamfusion", "sds"):
        if name in names:
            return name
    raise TraceBenchError(
        f"Elo needs a contestant whose score is fixed at {START:g}: set anchor=... to one of {there}."
    )
