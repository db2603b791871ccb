"""The order of the methods, and whether it is that of the paper: rank correlation with an exact test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import nan

import numpy as np

from scripts.leaderboard.rows import Board
from scripts.leaderboard.sections import MAIN

#: The number that orders the table, and the one to look at first (docs/evaluation.md).
FIRST = "match"
#: So many methods have 8! = 40,320 orders, which takes a second.
MOST = 8


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b of two rankings of the same methods, and how rare such a tau is among all orders."""

    methods: tuple[str, ...]
    tau: float
    p: float  # two-sided
    smallest_p: float  # that these many methods can give


def best_first(board: Board, section: str = MAIN) -> list[str]:
    """The methods of a section by their mean of `FIRST`."""
    frame = board.sections[section]
    if frame.empty:
        return []
    means = frame.groupby("method")[FIRST].mean().sort_values(ascending=False, kind="stable")
    return [str(name) for name in means.index]


def rank_agreement(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Agreement:
    """Both map methods to a number of which more is better; methods that only one has are left out."""
    methods = tuple(name for name in theirs if name in ours)
    if len(methods) < 3 or len(methods) > MOST:
        return Agreement(methods, nan, nan, nan)
    every = _tau_of_all_orders(*([numbers[name] for name in methods] for numbers in (ours, theirs)))
    tau, most = float(every[0]), float(np.abs(every).max())
    return Agreement(methods, tau, _share(every, abs(tau)), _share(every, most))


def _tau_of_all_orders(x: Sequence[float], y: Sequence[float]) -> np.ndarray:
    """Kendall's tau-b of x and each order of y, y's own first; scipy has it for one order at a time."""
    first, second = (np.sign(np.subtract.outer(values, values)) for values in (x, y))
    orders = np.array(list(permutations(range(len(y)))))
    agreeing = np.einsum("ij,kij->k", first, second[orders[:, :, None], orders[:, None, :]])
    return agreeing / np.sqrt((first**2).sum() * (second**2).sum())


def _share(taus: np.ndarray, least: float) -> float:
    return float((np.abs(taus) >= least - 1e-12).mean())
