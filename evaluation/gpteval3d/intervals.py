"""Intervals of Elo scores and tests between contestants: profile likelihood, corrected for prompts.

The deviance of a value r for one contestant is twice the rise of the NLL when its score is held at r and all
other free scores follow. If games were independent, the 95 % interval would be where the deviance is below
3.84. They are not: a method that wins a prompt wins most of its games there. So the deviance is divided by
the contestant's design effect, and the limit is the square of Student's t with (prompts - 1) degrees of
freedom:

    deviance(r) / effect <= t^2(.975, C - 1),     effect = Var_jackknife / Var_independent

Var_jackknife leaves out one prompt at a time, Var_independent is the inverse Hessian. A contestant that never
lost has no finite maximum; its deviance falls to zero towards infinity, so its interval has a lower end only.
Such games cannot say how alike those of one prompt are, and then each prompt counts as one game; so it does
where all prompts say exactly the same. Below six prompts there is no interval. docs/statistics.md shows how
often the intervals contain the truth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from evaluation.gpteval3d.elo import PER_BETA, Array, Flags, derivatives, existence, fit, minimise, nll
from evaluation.statistics.paired import ALPHA, FEWEST

FAR = 4000.0  # Elo from the estimate; a deviance that is below the limit there counts as unbounded
_TRACE = (
    1e-4  # wins added where a maximum is infinite, so that it can be computed; moves deviances by about 1e-3
)
_REFITS = 500  # with more clusters the sandwich replaces the jackknife; they agree there
_HALVINGS = 34


@dataclass(frozen=True)
class Intervals:
    """95 % intervals of M contestants, and p of equal scores for each pair."""

    low: Array  # [M]; nan if frozen, undefined or below six clusters; -inf if never won
    high: Array  # [M]; inf if never lost
    p: Array  # [M, M]; nan where there is nothing to compare


@dataclass(frozen=True)
class _Profile:
    """The likelihood around its maximum."""

    wins: Array  # [M, M]
    beta: Array  # [M] the maximum
    free: Flags  # [M]
    deviance_at: float  # NLL of the maximum
    limit: float  # of the deviance over the effect


def intervals(matrices: Array, frozen: Mapping[int, float]) -> Intervals:
    """From the win matrices [C, M, M] of clusters of games (prompts)."""
    clusters, methods = matrices.shape[:2]
    nothing = np.full(methods, np.nan)
    empty = Intervals(nothing, nothing.copy(), np.full((methods, methods), np.nan))
    held = np.zeros(methods, bool)
    held[list(frozen)] = True
    wins = matrices.sum(axis=0)
    linked = existence(wins[None], held)[0][0]
    free = linked & ~held
    if clusters < FEWEST or not free.any():
        return empty
    matrices = matrices * np.outer(linked, linked)
    profile = _profile(matrices.sum(axis=0), free, frozen, clusters)
    effect = _effects(matrices, frozen, free)
    low, high = empty.low, empty.high
    at = np.flatnonzero(free)
    for side, bound in ((-1, low), (1, high)):
        bound[at] = _bounds(profile, at, side, effect[at, at])
    return Intervals(low, high, _tests(profile, effect, linked, held, clusters))


def _profile(wins: Array, free: Flags, frozen: Mapping[int, float], clusters: int) -> _Profile:
    found = fit(wins[None], frozen)
    beta = np.nan_to_num(found.elo[0]) / PER_BETA
    if found.regularised[0]:
        wins = wins + _TRACE * (wins + wins.T > 0)
        beta = minimise(wins[None], free[None], beta[None])[0]
    limit = float(stdtrit(clusters - 1, 1 - ALPHA / 2)) ** 2
    return _Profile(wins, beta, free, float(nll(wins[None], beta[None])[0]), limit)


def _effects(matrices: Array, frozen: Mapping[int, float], free: Flags) -> Array:
    """Design effects [M, M] of differences of scores; on the diagonal those of the scores."""
    clusters, methods = matrices.shape[:2]
    wins = matrices.sum(axis=0)
    found = fit(wins[None], frozen)
    games = (matrices.sum(axis=1) + matrices.sum(axis=2)).mean(axis=0)  # [M] per cluster
    most = np.maximum(1.0, np.maximum(games[:, None], games[None]))
    beta = np.nan_to_num(found.elo[0]) / PER_BETA
    if found.regularised[0]:
        return most
    at = np.flatnonzero(free)
    _, hessian = derivatives(wins[None], beta[None])
    inverse = np.zeros((methods, methods))
    inverse[np.ix_(at, at)] = np.linalg.inv(hessian[0][np.ix_(at, at)])
    if clusters <= _REFITS:
        left_out = fit(wins[None] - matrices, frozen)
        moved = left_out.elo / PER_BETA - beta
        if left_out.regularised.any() or not np.isfinite(moved[:, at]).all():
            return most
        moved = np.where(free, moved, 0.0)
        spread = (clusters - 1) / clusters * moved.T @ moved
    else:
        gradients, _ = derivatives(matrices, np.repeat(beta[None], clusters, axis=0))
        spread = inverse @ (gradients.T @ gradients) @ inverse
    actual, independent = (_of_differences(matrix) for matrix in (spread, inverse))
    return np.divide(actual, independent, out=most, where=actual > 1e-9 * independent)


def _of_differences(covariance: Array) -> Array:
    """Variances [M, M] of the differences; of the score itself on the diagonal."""
    variance = np.diag(covariance)
    differences = variance[:, None] + variance[None] - 2 * covariance
    return np.where(np.eye(len(variance), dtype=bool), np.diag(variance), differences)


def _deviances(profile: _Profile, at: NDArray[np.intp], beta: Array) -> Array:
    """Deviance [B] with contestant at[b] held at beta[b]."""
    rows = np.arange(len(at))
    wins = np.repeat(profile.wins[None], len(at), axis=0)
    start, free = (
        np.repeat(profile.beta[None], len(at), axis=0),
        np.repeat(profile.free[None], len(at), axis=0),
    )
    start[rows, at], free[rows, at] = beta, False
    return 2 * (nll(wins, minimise(wins, free, start)) - profile.deviance_at)


def _bounds(profile: _Profile, at: NDArray[np.intp], side: int, effect: Array) -> Array:
    """Lower (side -1) or upper (1) ends [B] in Elo; infinite if the deviance stays below its limit."""
    limit = profile.limit * effect
    inside = profile.beta[at]
    outside = inside + side * FAR / PER_BETA
    unbounded = _deviances(profile, at, outside) <= limit
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        kept = _deviances(profile, at, middle) <= limit
        inside, outside = np.where(kept, middle, inside), np.where(kept, outside, middle)
    return np.where(unbounded, side * np.inf, inside * PER_BETA)


def _tests(profile: _Profile, effect: Array, linked: Flags, held: Flags, clusters: int) -> Array:
    """p [M, M] of equal scores: the deviance of a model in which two contestants are one."""
    methods = len(linked)
    p = np.full((methods, methods), np.nan)
    pairs = [
        (i, j) if held[i] else (j, i)  # the first of the two stays
        for i, j in itertools.combinations(np.flatnonzero(linked), 2)
        if not (held[i] and held[j])
    ]
    if not pairs:
        return p
    kept, gone = np.array(pairs).T
    rows = np.arange(len(pairs))
    wins = np.repeat(profile.wins[None], len(pairs), axis=0)
    between = wins[rows, kept, gone] + wins[rows, gone, kept]
    wins[rows, kept] += wins[rows, gone]
    wins[rows, :, kept] += wins[rows, :, gone]
    wins[rows, gone] = 0.0
    wins[rows, :, gone] = 0.0
    wins[rows, kept, kept] = 0.0
    free = np.repeat(profile.free[None], len(pairs), axis=0)
    free[rows, gone] = False
    start = np.repeat(profile.beta[None], len(pairs), axis=0)
    together = nll(wins, minimise(wins, free, start)) + between * math.log(2)
    deviance = np.maximum(0.0, 2 * (together - profile.deviance_at))
    p[kept, gone] = p[gone, kept] = 2 * stdtr(clusters - 1, -np.sqrt(deviance / effect[kept, gone]))
    return p


def standard_errors(matrices: Array, elo: Array, frozen: Mapping[int, float]) -> tuple[Array, Array]:
    """(naive, clustered) standard errors [M] in Elo: H^-1, and the sandwich H^-1 (sum g_c g_c^T) H^-1.

    `matrices` [C, M, M] are the clusters' win matrices, `elo` [M] the maximum of their sum; 0 where frozen.
    """
    methods = len(elo)
    free = np.array([i for i in range(methods) if i not in frozen])
    beta = elo[None] / PER_BETA
    _, hessian = derivatives(matrices.sum(axis=0)[None], beta)
    gradients, _ = derivatives(matrices, np.repeat(beta, len(matrices), axis=0))
    inverse = np.linalg.inv(hessian[0][np.ix_(free, free)])
    scores = gradients[:, free]
    sandwich = inverse @ (scores.T @ scores) @ inverse
    naive_se, clustered_se = np.zeros(methods), np.zeros(methods)
    naive_se[free] = PER_BETA * np.sqrt(np.diag(inverse))
    clustered_se[free] = PER_BETA * np.sqrt(np.diag(sandwich))
    return naive_se, clustered_se
