"""Percentages of judgements, with confidence intervals.

Judgements are crossed: each rater judges many prompts, and each prompt is judged by many raters. Intervals
therefore resample raters *and* prompts with replacement; the weight of a judgement is the product of how
often its rater and its prompt were drawn (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007;
conservative). Raters and prompts are drawn once for all cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.statistics.paired import ALPHA, FEWEST
from evaluation.user_study.agreement import alpha, coincidences
from evaluation.user_study.votes import OUTCOMES

Floats = NDArray[np.float64]
LEVEL = 1 - ALPHA
OURS, TIE, UNKNOWN, BASELINE = range(len(OUTCOMES))


@dataclass(frozen=True)
class Bootstrap:
    """How often each rater and prompt was drawn in each replicate."""

    raters: Floats  # [B, R]
    prompts: Floats  # [B, P]

    @staticmethod
    def draw(raters: int, prompts: int, replicates: int, seed: int) -> Bootstrap:
        rng = np.random.default_rng(seed)
        draws = [
            rng.multinomial(n, [1 / n] * n, replicates) if n else np.zeros((replicates, 0))
            for n in (raters, prompts)
        ]
        return Bootstrap(*(draw.astype(float) for draw in draws))

    def totals(self, counts: Floats) -> Floats:
        """Weighted sums over raters and prompts: [R, P, K] -> [B, K]."""
        n, p, k = counts.shape
        by_prompt = (self.raters @ counts.reshape(n, p * k)).reshape(len(self.raters), p, k)
        return np.einsum("bp,bpk->bk", self.prompts, by_prompt)


def tensor(frame: pd.DataFrame, raters: list[str], prompts: list[str]) -> Floats:
    """Judgements by rater, prompt and outcome: [R, P, 4]."""
    counts = np.zeros((len(raters), len(prompts), len(OUTCOMES)))
    index = [
        pd.Categorical(frame[column], categories=categories).codes
        for column, categories in (("rater_id", raters), ("prompt_id", prompts), ("outcome", list(OUTCOMES)))
    ]
    np.add.at(counts, tuple(index), 1.0)
    return counts


def estimate(counts: Floats, drawn: Floats, top: Floats, bottom: Floats) -> dict[str, float | None]:
    """100 · (votes · top) / (votes · bottom) with its percentile interval, for outcome weights [4].

    No value without votes; no interval with fewer than six raters or prompts (`FEWEST`).

    Args:
        counts: [R, P, 4].
        drawn: [B, 4], `Bootstrap.totals` of `counts`.
    """
    total = counts.sum((0, 1))
    if total @ bottom == 0:
        return {"value": None, "low": None, "high": None}
    value = 100.0 * float(total @ top / (total @ bottom))
    weighed = counts @ bottom
    if (weighed.sum(1) > 0).sum() < FEWEST or (weighed.sum(0) > 0).sum() < FEWEST:
        return {"value": value, "low": None, "high": None}
    votes = drawn @ bottom
    return {"value": value, **percentiles(100.0 * (drawn @ top)[votes > 0] / votes[votes > 0])}


def percentiles(samples: Floats) -> dict[str, float | None]:
    """Percentile interval of bootstrap samples, ignoring replicates without a value."""
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return {"low": None, "high": None}
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"low": float(low), "high": float(high)}


def row(counts: Floats, bootstrap: Bootstrap) -> dict[str, Any]:
    """The statistics of one aspect and baseline, from its judgements [R, P, 4]."""
    weights, drawn = np.eye(len(OUTCOMES)), bootstrap.totals(counts)
    everything, decided = weights.sum(0), weights[OURS] + weights[BASELINE]
    ties = weights[TIE] + weights[UNKNOWN]
    ours, tie, unknown, baseline = (int(n) for n in counts.sum((0, 1)))
    votes = ours + tie + unknown + baseline
    tops = {"ours": weights[OURS], "tie": ties, "baseline": weights[BASELINE]}
    return {
        "votes": votes,
        "raters": int((counts.sum((1, 2)) > 0).sum()),
        "prompts": int((counts.sum((0, 2)) > 0).sum()),
        "counts": {"ours": ours, "tie": tie, "unknown": unknown, "baseline": baseline},
        "percent": {name: estimate(counts, drawn, top, everything) for name, top in tops.items()},
        "decided": {
            "votes": ours + baseline,
            "ours": estimate(counts, drawn, weights[OURS], decided),
            **sign_test(ours, baseline),
        },
        "ties_as_half": estimate(counts, drawn, weights[OURS] + ties / 2, everything),
    }


def sign_test(ours: int, baseline: int) -> dict[str, Any]:
    """Wilson interval and two-sided sign test of decided votes; both treat votes as independent."""
    if ours + baseline == 0:
        return {"wilson": {"low": None, "high": None}, "sign_test_p": None}
    from scipy.stats import binomtest  # lazy: takes about a second

    test = binomtest(ours, ours + baseline)
    wilson = test.proportion_ci(LEVEL, method="wilson")
    return {
        "wilson": {"low": 100.0 * float(wilson.low), "high": 100.0 * float(wilson.high)},
        "sign_test_p": float(test.pvalue),
    }


def agreement(counts: Floats, bootstrap: Bootstrap) -> dict[str, Any]:
    """Krippendorff's alpha over ours, tie, baseline; unknown counts as missing.

    Args:
        counts: [P, C, 4], judgements of each prompt and baseline; these are the units.

    The interval resamples prompts only, because a rater drawn twice would agree with themselves.
    """
    prompts, baselines, _ = counts.shape
    kept = counts[..., [OURS, TIE, BASELINE]].reshape(prompts * baselines, 3)
    units = coincidences(kept)
    value = float(alpha(units.sum(0)))
    by_prompt = units.reshape(prompts, baselines, 9).sum(1)
    interval: dict[str, float | None] = {"low": None, "high": None}
    if np.isfinite(value) and (by_prompt.sum(1) > 0).sum() >= FEWEST:
        interval = percentiles(alpha((bootstrap.prompts @ by_prompt).reshape(-1, 3, 3)))
    rated = kept.sum(1) > 1
    return {
        "alpha": {"value": value if np.isfinite(value) else None, **interval},
        "units": int(rated.sum()),
        "votes": int(kept[rated].sum()),
    }
