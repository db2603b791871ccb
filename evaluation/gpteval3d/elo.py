"""Elo scores by maximum likelihood in the Bradley-Terry model, in GLIDE's form (Nichol et al. 2021, A.1).

    P(i beats j) = 1 / (1 + 10^((R_j - R_i) / 400)) = sigmoid(beta_i - beta_j),     beta = R ln 10 / 400
    NLL(beta)    = sum_{i != j} A_ij log(1 + exp(beta_j - beta_i)),                 A_ij: how often i beat j

The NLL is convex; Newton's method with step halving minimises it for many win matrices at once. Some scores
are frozen: an anchor, or all but a new method. The minimum is finite and unique if and only if every free
method reaches the frozen ones and is reached by them along "beat" (Ford 1957). Otherwise the data are
separated (a group of methods never lost, or never won, against the rest), and half a win is added to both
sides of every pair that met.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

Array = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]

PER_BETA = 400.0 / math.log(10.0)
START = 1000.0
PRIOR = 0.5  # wins added to both sides of a pair if the data are separated
_GRADIENT, _ITERATIONS, _HALVINGS = 1e-10, 100, 60
_RIDGE = 1e-12  # of the Hessian, for groups so far apart that nothing links them; moves no minimum


@dataclass(frozen=True)
class Fit:
    """Scores of M methods from B win matrices."""

    elo: Array  # [B, M]; nan if no chain of games leads to a frozen method
    regularised: Flags  # [B]: PRIOR was added because the maximum was not finite


def fit(wins: Array, frozen: Mapping[int, float], prior: float | None = None) -> Fit:
    """Scores from win matrices [B, M, M]; the scores of `frozen` (index -> Elo) stay fixed.

    `prior` is added to both sides of every pair that met; None: PRIOR if needed, else nothing.
    """
    wins = np.array(wins, np.float64)
    methods = wins.shape[-1]
    wins[:, range(methods), range(methods)] = 0.0
    held = np.zeros(methods, bool)
    held[list(frozen)] = True
    linked, finite = existence(wins, held)
    separated = (linked & ~finite).any(axis=1)
    amount = np.where(separated, PRIOR, 0.0) if prior is None else np.full(len(wins), prior)
    wins = wins + amount[:, None, None] * (wins + wins.swapaxes(1, 2) > 0)
    wins *= linked[:, :, None] & linked[:, None, :]
    start = np.full(methods, START)
    start[list(frozen)] = list(frozen.values())
    elo = minimise(wins, ~held & linked, np.tile(start / PER_BETA, (len(wins), 1))) * PER_BETA
    elo[:, held] = start[held]  # exactly as given
    regularised = separated if prior is None else np.full(len(wins), prior > 0)
    return Fit(np.where(linked, elo, np.nan), np.asarray(regularised, bool))


def existence(wins: Array, held: Flags) -> tuple[Flags, Flags]:
    """Which methods [B, M] are linked to a frozen one by games, and which have a finite score."""
    edges = (wins > 0) | np.eye(wins.shape[-1], dtype=bool) | np.outer(held, held)
    anchor = int(np.flatnonzero(held)[0])
    linked = _closure(edges | edges.swapaxes(1, 2))[:, :, anchor]
    reach = _closure(edges)
    return linked, reach[:, :, anchor] & reach[:, anchor, :]


def _closure(edges: Flags) -> Flags:
    """Transitive closure of the edges [B, M, M], by repeated squaring."""
    reach = edges.astype(np.float32)
    for _ in range(max(1, math.ceil(math.log2(edges.shape[-1])))):
        reach = (reach @ reach > 0).astype(np.float32)
    return reach > 0


def minimise(wins: Array, free: Flags, beta: Array) -> Array:
    """Scores [B, M] that minimise the NLL over the `free` entries [B, M], starting from `beta` [B, M]."""
    value = nll(wins, beta)
    for _ in range(_ITERATIONS):
        gradient, hessian = derivatives(wins, beta)
        gradient = np.where(free, gradient, 0.0)
        if np.abs(gradient).max(initial=0.0) < _GRADIENT:
            break
        both = free[:, :, None] & free[:, None, :]
        hessian = np.where(both, hessian, 0.0) + (~free)[:, :, None] * np.eye(free.shape[1])
        hessian = hessian * (1.0 + _RIDGE * np.eye(free.shape[1])) + _RIDGE * np.eye(free.shape[1])
        step = -np.linalg.solve(hessian, gradient[..., None])[..., 0]
        beta, value, moved = _line_search(wins, beta, value, step)
        if not moved:
            break
    return beta


def _line_search(wins: Array, beta: Array, value: Array, step: Array) -> tuple[Array, Array, bool]:
    """Halve the steps [B, M] until no NLL [B] rises by more than rounding."""
    size = np.ones(len(beta))
    for _ in range(_HALVINGS):
        moved = beta + size[:, None] * step
        new = nll(wins, moved)
        worse = ~(new <= value + 1e-13 * (1.0 + np.abs(value)))
        if not worse.any():
            return moved, new, bool(np.abs(moved - beta).max(initial=0.0) > 1e-14)
        size[worse] *= 0.5
    return beta, value, False


def nll(wins: Array, beta: Array) -> Array:
    """Negative log-likelihood [B]."""
    return -(wins * log_expit(beta[:, :, None] - beta[:, None, :])).sum(axis=(1, 2))


def derivatives(wins: Array, beta: Array) -> tuple[Array, Array]:
    """Gradient [B, M] and Hessian [B, M, M] (a graph Laplacian) of the NLL."""
    p = expit(beta[:, :, None] - beta[:, None, :])  # P(i beats j)
    met = wins + wins.swapaxes(1, 2)
    gradient = (met * p - wins).sum(axis=2)
    weight = met * p * (1.0 - p)
    diagonal = weight.sum(axis=2)[:, :, None] * np.eye(wins.shape[-1])
    return gradient, diagonal - weight


def win_matrix(
    games: Sequence[tuple[int, int, float]], methods: int, weights: Sequence[float] | None = None,
    draw: float = 1.0,
) -> Array:  # fmt: skip
    """Win matrix A [M, M] from games (i, j, result): -1 if i won, 1 if j won, 0 for a draw.

    A draw counts as `draw` wins for both sides: 1 in the published code, 1/2 in another convention.
    """
    return cluster_matrices(games, methods, np.zeros(len(games), int), 1, weights, draw)[0]


def cluster_matrices(
    games: Sequence[tuple[int, int, float]], methods: int, clusters: NDArray[np.intp], n_clusters: int,
    weights: Sequence[float] | None = None, draw: float = 1.0,
) -> Array:  # fmt: skip
    """Win matrices [C, M, M] of clusters of games; they sum to the win matrix of all games."""
    matrices = np.zeros((n_clusters, methods, methods))
    if len(games) == 0:
        return matrices
    i, j, result = np.array(games, np.float64).T
    i, j = i.astype(int), j.astype(int)
    weight = np.ones(len(games)) if weights is None else np.asarray(weights, np.float64)
    np.add.at(matrices, (clusters, i, j), weight * np.where(result < 0, 1.0, np.where(result > 0, 0.0, draw)))
    np.add.at(matrices, (clusters, j, i), weight * np.where(result > 0, 1.0, np.where(result < 0, 0.0, draw)))
    return matrices
