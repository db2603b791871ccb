"""Turns games into result rows: Elo, interval and game counts of every contestant."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from evaluation.gpteval3d.comparisons import Game
from evaluation.gpteval3d.elo import START, cluster_matrices, fit
from evaluation.gpteval3d.intervals import bootstrap
from trace_bench.system.errors import TraceBenchError

SHAKY = 0.025  # share of regularised or undefined replicates above which an interval is marked


@dataclass(frozen=True)
class Rules:
    """How games become Elo."""

    draw: float = 1.0  # wins per draw for both sides; 1 as in the published code, 1/2 is another convention
    seed: int = 0  # of the bootstrap
    replicates: int = 1000


@dataclass(frozen=True)
class Rating:
    """One contestant and criterion."""

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
    spread = bootstrap(matrices, held, rules.seed, rules.replicates) if len(order) > 1 else None
    tally = _tally(games)
    notes = _notes(
        bool(found.regularised[0]), spread.regularised if spread else 0.0, spread.undefined if spread else 0.0
    )
    ratings = []
    for name, i in index.items():
        elo = float(found.elo[0, i])
        undefined = math.isnan(elo)
        low, high = (spread.low[i], spread.high[i]) if spread else (math.nan, math.nan)
        held_here = name in frozen
        why = "no chain of comparisons links it to a frozen score" if undefined else None
        ratings.append(
            Rating(
                name, criterion, None if undefined else elo, None if undefined else _number(low),
                None if undefined else _number(high), sum(tally[name].values()), tally[name]["win"],
                tally[name]["draw"], tally[name]["loss"], held_here,
                bool(found.regularised[0]) and not held_here, why if undefined or held_here else notes,
            )
        )  # fmt: skip
    return ratings


def _notes(regularised: bool, replicates: float, undefined: float) -> str | None:
    """Notes for readers of a free score."""
    notes = []
    if regularised:
        notes.append("some contestants never lost or never won, so every pair got half a win for both sides")
    elif replicates > SHAKY:
        notes.append(f"{replicates:.0%} of the bootstrap replicates needed half a win for both sides")
    if undefined > SHAKY:
        notes.append(f"up to {undefined:.0%} of the bootstrap replicates leave a score undefined")
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
    return None if math.isnan(value) else float(value)


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
