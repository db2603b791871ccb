"""Uncertainty of Elo scores: bootstrap over clusters of games (prompts), and standard errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluation.gpteval3d.elo import PER_BETA, Array, derivatives, fit

REPLICATES = 1000
LEVEL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals of M methods."""

    low: Array  # [M]; nan if frozen or never defined
    high: Array  # [M]
    regularised: float  # share of replicates with separated data
    undefined: float  # share of replicates without a link to the anchor, maximum over methods


def bootstrap(
    matrices: Array, frozen: Mapping[int, float], seed: int = 0, replicates: int = REPLICATES
) -> Bootstrap:
    """Resample clusters (win matrices [C, M, M]) with replacement and refit."""
    clusters, methods = matrices.shape[:2]
    rng = np.random.default_rng(seed)
    wins = np.empty((replicates, methods, methods))
    for k in range(replicates):
        counts = np.bincount(rng.integers(0, clusters, clusters), minlength=clusters)
        wins[k] = np.tensordot(counts.astype(np.float64), matrices, 1)
    found = fit(wins, frozen)
    elo = found.elo.copy()
    elo[:, list(frozen)] = np.nan
    defined = np.isfinite(elo)
    low, high = np.full(methods, np.nan), np.full(methods, np.nan)
    for i in np.flatnonzero(defined.any(axis=0)):
        low[i], high[i] = np.percentile(elo[defined[:, i], i], LEVEL)
    free = [i for i in range(methods) if i not in frozen]
    undefined = float((~defined[:, free]).mean(axis=0).max(initial=0.0))
    return Bootstrap(low, high, float(found.regularised.mean()), undefined)


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
