"""How often the tiny CLIP names the asset that is better by the truth, from the rows alone.

As judge=clip, it compares two methods' assets of one prompt, here of one seed too: the higher CLIP score
wins. The truth's winner has the higher Match, as judge=truth decides text-asset alignment.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from evaluation.gpteval3d.criteria import CRITERIA
from evaluation.gpteval3d.score_judge import verdict
from evaluation.judge_validity.agreement import Validity, validity
from evaluation.judge_validity.judgements import Judged, Judgement
from scripts.leaderboard.ranking import FIRST
from trace_bench.system.config_path import conf_dir

SCORE = "clip_score"


def clip_validity(frame: pd.DataFrame) -> tuple[list[str], list[Validity]]:
    """The methods compared, and the agreement by criterion.

    A method that maximises the CLIP score is left out: the judge's own number is no evidence about it.
    """
    if "optimised" in frame:
        frame = frame[~frame["optimised"].fillna("").map(lambda names: SCORE in str(names).split())]
    margin = float(OmegaConf.load(Path(conf_dir()) / "judge" / "truth.yaml").judge.tie_margin)
    methods = sorted(set(map(str, frame["method"])))
    found: list[Judgement] = []
    for (prompt, _seed), rows in frame.groupby(["prompt_id", "seed"], sort=True):
        assets = {str(row["method"]): row for _, row in rows.iterrows()}
        for first, second in combinations(sorted(assets), 2):
            pair = f"{prompt}\0{first}\0{second}"
            result = _compare(assets[first], assets[second], SCORE, 0.0)
            truth = _compare(assets[first], assets[second], FIRST, margin)
            found.append(Judgement(CRITERIA[0], str(prompt), pair, result, truth, False))
    return methods, validity(Judged("tiny CLIP", "", found, 0, sides=False))


def _compare(first: Mapping[str, float], second: Mapping[str, float], name: str, margin: float) -> int:
    """-1 if the first asset has more, 1 if the second has; an empty asset has nothing."""
    one, other = (0.0 if pd.isna(row[name]) else float(row[name]) for row in (first, second))
    return verdict(one, other, margin)
