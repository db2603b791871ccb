"""Numbers of a judge's validity on one criterion.

    agreement     share of the verdicts that name the truth's winner, where both name one
    draws         share of the judge's verdicts that are draws
    left          share of the verdicts with a winner that the left asset won; an unbiased judge has 50 %
    consistency   share of the pairs of verdicts on the same two assets and criterion that are equal: both
                  orders, repeated choices, other raters

Intervals are those of a ratio over prompts (clusters): r ± t(P - 1) s, with the linearised standard error
s^2 = P / (P - 1) sum (y_p - r n_p)^2 / (sum n_p)^2 (Cochran 1977, section 6.4). There is none below 6
prompts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import comb, nan, sqrt
from typing import NamedTuple

from scipy.stats import t

from evaluation.gpteval3d.criteria import CRITERIA
from evaluation.judge_validity.judgements import Judged, Judgement

LEAST_PROMPTS = 6


class Share(NamedTuple):
    """A share in [0, 1] with its 95 % interval; nan where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Validity:
    judge: str
    about: str
    criterion: str
    verdicts: int
    prompts: int
    agreement: Share
    draws: float
    left: Share
    consistency: float
    left_out: int
    assets: str  # whose assets: prompt set, prior and seed


def validity(judged: Judged) -> list[Validity]:
    """One row per criterion, in the published order."""
    rows = []
    for criterion in CRITERIA:
        found = [item for item in judged.judgements if item.criterion == criterion]
        if not found:
            continue
        decided = [item for item in found if item.result]
        rows.append(
            Validity(
                judged.judge, judged.about, criterion, len(found), len({item.prompt for item in found}),
                _share([item for item in decided if item.truth], lambda item: item.result == item.truth),
                1.0 - len(decided) / len(found),
                _share(decided if judged.sides else [], lambda item: item.result < 0),
                _consistency(found), judged.left_out, judged.assets,
            )
        )  # fmt: skip
    return rows


def _share(items: Iterable[Judgement], hit: Callable[[Judgement], bool]) -> Share:
    """The share of hits, with its interval over prompts."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for item in items:
        counts[item.prompt][0] += hit(item)
        counts[item.prompt][1] += 1
    return ratio(list(counts.values()))


def ratio(counts: Sequence[Sequence[int]]) -> Share:
    """sum y / sum n of clusters (y, n), and its interval, cut to [0, 1]."""
    whole = sum(n for _, n in counts)
    if not whole:
        return Share(nan, nan, nan)
    r, clusters = sum(y for y, _ in counts) / whole, len(counts)
    if clusters < LEAST_PROMPTS:
        return Share(r, nan, nan)
    spread = sum((y - r * n) ** 2 for y, n in counts) * clusters / (clusters - 1)
    half = float(t.ppf(0.975, clusters - 1)) * sqrt(spread) / whole
    return Share(r, max(0.0, r - half), min(1.0, r + half))


def _consistency(found: Iterable[Judgement]) -> float:
    """nan if no two assets were compared twice."""
    by_pair: dict[str, Counter[int]] = defaultdict(Counter)
    for item in found:
        by_pair[item.pair][item.winner] += 1
    equal = sum(comb(n, 2) for counts in by_pair.values() for n in counts.values())
    pairs = sum(comb(counts.total(), 2) for counts in by_pair.values())
    return equal / pairs if pairs else nan
