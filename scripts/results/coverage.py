"""Whether intervals and tests keep their promise: simulations for docs/statistics.md and its tests.

The residuals are those of the toy world: toy_scores.csv has the scores of ten methods on eight prompts, from

    python -m trace_bench -m prompt_set=toy hydra/launcher=local \\
        method=sds,csd,vsd,sdi,ism,trace,trace_official,trace_official_trained,consistent3d,dreamer_xl
    python -m evaluation.score
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from evaluation.gpteval3d.elo import fit
from evaluation.gpteval3d.intervals import intervals
from evaluation.statistics.multiple import holm
from evaluation.statistics.paired import ALPHA, p_value
from evaluation.user_study.statistics import BASELINE, OURS, Bootstrap, estimate
from evaluation.user_study.votes import OUTCOMES
from scripts.results.workshop import Workshop

Values = NDArray[np.floating[Any]]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Values]
SCORES = Path(__file__).with_name("toy_scores.csv")
PROMPTS = (6, 8, 20, 50, 110)
ELO_PROMPTS = (6, 8, 20, 50)  # of the tournaments of equals
RATERS, VOTE_PROMPTS = (6, 10, 20, 60), (6, 10, 20, 50)  # of a user study
REPEATS, ELO_REPEATS, FAMILIES, VOTE_REPEATS = 4000, 400, 2000, 1000
DESIGNS = ((3, 8), (4, 8), (10, 12), (10, 20), (10, 110))  # methods, prompts
STRENGTHS = np.linspace(-0.6, 0.6, 6)  # of the contestants, in logits; the first is the anchor
_ANCHOR = {0: 1000.0}


@cache
def scores(metric: str) -> Values:
    """Measured scores [prompts, methods]."""
    return pd.read_csv(SCORES).pivot(index="prompt", columns="method", values=metric).to_numpy(float)


def differences(metric: str) -> Values:
    """Measured differences [pairs, prompts] of all pairs of methods, each pair around its mean."""
    values = scores(metric)
    found = np.array([values[:, i] - values[:, j] for i, j in combinations(range(values.shape[1]), 2)])
    return found - found.mean(axis=1, keepdims=True)


def interactions(metric: str) -> Values:
    """Measured scores without the means of methods and prompts, as one list with standard deviation 1."""
    values = scores(metric)
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return rest.ravel() / rest.std()


def _drawn_from(pool: Values) -> Draw:
    return lambda rng, shape: rng.choice(pool, shape)


def distributions() -> dict[str, Draw]:
    """Differences with mean zero."""
    measured = {"iou": "IoU", "delta_e": "ΔE", "clip_score": "CLIP"}
    return {
        "normal": lambda rng, shape: rng.normal(size=shape),
        "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
        "lognormal, σ = 0.5": lambda rng, shape: np.exp(0.5 * rng.normal(size=shape)) - np.exp(0.125),
        **{f"measured {label}": _drawn_from(differences(name).ravel()) for name, label in measured.items()},
    }


def extreme(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Lognormal differences with σ = 1: skewness 6.2, which no method covers with few prompts."""
    return np.exp(rng.normal(size=shape)) - np.exp(0.5)


def mean_coverage(draw: Draw, prompts: int, repeats: int = REPEATS) -> float:
    """Share of intervals of a mean that contain it: those in which the test keeps the true mean."""
    drawn = draw(np.random.default_rng(prompts), (repeats, prompts))
    return float(np.mean([p_value(row) > ALPHA for row in drawn]))


def false_families(methods: int, prompts: int, families: int = FAMILIES) -> float:
    """Share of tables with a decided pair, when the labels of the methods are permuted in each prompt."""
    rng, values = np.random.default_rng(methods * prompts), scores("iou")
    wrong = 0
    for _ in range(families):
        chosen = values[rng.integers(0, len(values), prompts)] if prompts > len(values) else values
        columns = rng.permutation(values.shape[1])[:methods]
        table = rng.permuted(chosen[:, columns], axis=1)
        pairs = [p_value(table[:, i] - table[:, j]) for i, j in combinations(range(methods), 2)]
        wrong += min(holm(pairs)) <= ALPHA
    return wrong / families


def elo_effects() -> dict[str, Draw]:
    """How much better a contestant is on one prompt than on average, in logits, with standard deviation 1."""
    return {
        "normal": lambda rng, shape: rng.normal(size=shape),
        "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
        "measured CLIP": _drawn_from(interactions("clip_score")),
        "measured IoU": _drawn_from(interactions("iou")),
    }


def tournament(
    draw: Draw, prompts: int, rng: np.random.Generator, games: int = 6, strengths: Values = STRENGTHS
) -> Values:
    """Win matrices [prompts, M, M]: on every prompt each pair plays six games, three in both orders."""
    methods = len(strengths)
    level = strengths + draw(rng, (prompts, methods))
    chance = expit(level[:, :, None] - level[:, None, :])
    won = np.triu(rng.binomial(games, chance), 1)
    return (won + np.triu(games - won, 1).swapaxes(1, 2) * np.tri(methods, k=-1)).astype(float)


def elo_coverage(draw: Draw, prompts: int, repeats: int = ELO_REPEATS) -> float:
    """Share of Elo intervals that contain the Elo of very many prompts."""
    truth = fit(tournament(draw, 40_000, np.random.default_rng(1)).sum(axis=0)[None], _ANCHOR).elo[0, 1:]
    rng, kept = np.random.default_rng(prompts), []
    for _ in range(repeats):
        found = intervals(tournament(draw, prompts, rng), _ANCHOR)
        kept.append((found.low[1:] <= truth) & (truth <= found.high[1:]))
    return float(np.mean(kept))


def elo_false_families(draw: Draw, prompts: int, repeats: int = 2 * ELO_REPEATS) -> float:
    """Share of tournaments with a decided pair, when all contestants are equally strong."""
    rng, equal = np.random.default_rng(prompts), np.zeros(len(STRENGTHS))
    pairs = np.triu_indices(len(equal), 1)
    wrong = 0
    for _ in range(repeats):
        p = intervals(tournament(draw, prompts, rng, strengths=equal), _ANCHOR).p[pairs]
        wrong += min(holm(p.tolist())) <= ALPHA
    return wrong / repeats


def votes_coverage(raters: int, prompts: int, repeats: int = VOTE_REPEATS) -> float:
    """Share of intervals of the votes for one method that contain its share over all raters and prompts.

    Each rater votes on each prompt; raters and prompts differ, with normal effects on the logit.
    """

    def chances(rng: np.random.Generator, raters: int, prompts: int) -> Values:
        return np.asarray(expit(0.4 + rng.normal(size=(raters, 1)) + rng.normal(size=prompts)))

    truth = 100.0 * float(chances(np.random.default_rng(0), 2000, 2000).mean())
    rng, kept = np.random.default_rng(raters * 1000 + prompts), 0
    everything, ours = np.ones(len(OUTCOMES)), np.eye(len(OUTCOMES))[OURS]
    for repeat in range(repeats):
        counts = np.zeros((raters, prompts, len(OUTCOMES)))
        counts[..., OURS] = rng.random((raters, prompts)) < chances(rng, raters, prompts)
        counts[..., BASELINE] = 1.0 - counts[..., OURS]
        drawn = Bootstrap.draw(raters, prompts, 500, repeat).totals(counts)
        found = estimate(counts, drawn, ours, everything)
        kept += found["low"] <= truth <= found["high"]  # type: ignore[operator]
    return kept / repeats


def mean_block(_shop: Workshop, _old: str) -> str:
    """docs/statistics.md: coverage of the intervals of mean differences."""
    rows = {name: [mean_coverage(draw, n) for n in PROMPTS] for name, draw in distributions().items()}
    rows["lognormal, σ = 1 (a limit)"] = [mean_coverage(extreme, n) for n in PROMPTS]
    return _table("Differences", rows)


def elo_block(_shop: Workshop, _old: str) -> str:
    """docs/statistics.md: coverage of the intervals of Elo."""
    return _table(
        "Effects of prompts",
        {name: [elo_coverage(draw, n) for n in PROMPTS] for name, draw in elo_effects().items()},
    )


def elo_families_block(_shop: Workshop, _old: str) -> str:
    """docs/statistics.md: tournaments of equals with a false positive."""
    rows = {
        name: [elo_false_families(elo_effects()[name], n) for n in ELO_PROMPTS]
        for name in ("normal", "exponential")
    }
    return _table("Effects of prompts", rows, ELO_PROMPTS)


def families_block(_shop: Workshop, _old: str) -> str:
    """docs/statistics.md: families of tests with a false positive."""
    lines = [
        "| methods | pairs | prompts | families with a false positive |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for methods, prompts in DESIGNS:
        share = false_families(methods, prompts)
        lines.append(f"| {methods} | {methods * (methods - 1) // 2} | {prompts} | {100 * share:.1f} % |")
    return "\n".join(lines)


def _table(first: str, rows: Mapping[str, list[float]], prompts: tuple[int, ...] = PROMPTS) -> str:
    heads = " | ".join(f"{n} prompts" for n in prompts)
    lines = [f"| {first} | {heads} |", f"| --- |{' ---: |' * len(prompts)}"]
    lines += [
        f"| {name} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |"
        for name, shares in rows.items()
    ]
    return "\n".join(lines)
