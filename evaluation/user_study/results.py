"""Computes preferences.json from judgements; docs/user_study.md describes the format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evaluation.user_study.answers import ANSWERS, Answers
from evaluation.user_study.aspects import ASPECTS
from evaluation.user_study.attention import EMPTY, FAILED, verdict
from evaluation.user_study.statistics import (
    BASELINE,
    LEVEL,
    OURS,
    UNKNOWN,
    Bootstrap,
    agreement,
    estimate,
    row,
    tensor,
)
from evaluation.user_study.study import COMPARISON, STUDY, Study
from trace_bench import __version__
from trace_bench.run_folder.manifest import utc_now
from trace_bench.run_folder.reading import natural

SCHEMA_VERSION = 2
PREFERENCES = "preferences.json"
METHOD = "percentile bootstrap over raters and prompts"


def dropped_of(study: Study, answers: Sequence[Answers]) -> list[dict[str, str]]:
    """Raters dropped by the study's rule, with reasons."""
    dropped = []
    for file in answers:
        trials = study.trials[file.rater]
        checks = sum(trial.kind != COMPARISON for trial in trials)
        said, failed, met = verdict(trials, file.by_trial(), study.max_failed_checks)
        if said == FAILED:
            reason = f"failed {failed} of {met} attention checks"
        elif said == EMPTY and checks:
            reason = "stopped before the first attention check"
        else:
            continue
        dropped.append({"rater": file.rater, "reason": reason})
    return dropped


def dropped_by_column(votes: pd.DataFrame) -> list[dict[str, str]]:
    """Raters marked as failed in another tool's CSV."""
    raters = votes.loc[votes["attention"] == FAILED, "rater_id"].unique()
    return [{"rater": rater, "reason": "failed the attention checks"} for rater in raters]


def preferences(
    votes: pd.DataFrame,  # of check_votes
    dropped: list[dict[str, str]],
    about: Mapping[
        str, Any
    ],  # study, study_id, baselines, ..., raters_assigned, prompts_planned, attention_rule
    made_from: Mapping[str, Any],
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """The content of preferences.json."""
    used = votes[~votes["rater_id"].isin({entry["rater"] for entry in dropped})]
    raters = sorted(used["rater_id"].unique())
    prompts = sorted(used["prompt_id"].unique(), key=natural)
    baselines = list(about["baselines"])
    bootstrap = Bootstrap.draw(len(raters), len(prompts), replicates, seed)
    counts = {
        (aspect.id, baseline): tensor(
            used[(used["aspect"] == aspect.id) & (used["baseline"] == baseline)], raters, prompts
        )
        for aspect in ASPECTS
        for baseline in baselines
    }
    everything = sum(counts.values(), np.zeros((len(raters), len(prompts), 4)))
    return {
        "schema_version": SCHEMA_VERSION,
        **{name: about[name] for name in ("study", "study_id", "ours")},
        "baselines": baselines,
        **{name: about[name] for name in ("prompt_set", "prior", "representation")},
        "raters": {
            "assigned": about["raters_assigned"],
            "answered": int(votes["rater_id"].nunique()),
            "used": len(raters),
            "dropped": dropped,
        },
        "prompts": {"planned": about["prompts_planned"], "used": len(prompts)},
        "attention_rule": about["attention_rule"],
        "interval": {"method": METHOD, "level": LEVEL, "replicates": replicates, "seed": seed},
        "rows": [
            {"aspect": aspect.id, "table": aspect.table, "title": aspect.title, "baseline": baseline}
            | row(counts[aspect.id, baseline], bootstrap)
            for aspect in ASPECTS
            for baseline in baselines
        ],
        "agreement": [
            {"aspect": aspect.id, "table": aspect.table}
            | agreement(np.stack([counts[aspect.id, c].sum(0) for c in baselines], axis=1), bootstrap)
            for aspect in ASPECTS
        ],
        "left": _left(used, raters, prompts, bootstrap),
        "unknown": _share(everything, bootstrap, [UNKNOWN], range(4)),
        "made_from": {**made_from, "trace_bench": __version__, "made": utc_now()},
    }


def _share(counts: Any, bootstrap: Bootstrap, top: Sequence[int], bottom: Sequence[int]) -> dict[str, Any]:
    weights = np.eye(4)
    votes = int(counts[..., list(bottom)].sum())
    return {
        "votes": votes,
        "percent": estimate(
            counts, bootstrap.totals(counts), weights[list(top)].sum(0), weights[list(bottom)].sum(0)
        ),
    }


def _left(used: pd.DataFrame, raters: list[str], prompts: list[str], bootstrap: Bootstrap) -> dict[str, Any]:
    """Share of decided votes for the left side; here the outcome "ours" means left."""
    sides = {"left": "ours", "right": "baseline"}
    decided = used[used["choice"].isin(sides)]
    decided = decided.assign(outcome=decided["choice"].map(sides))
    return _share(tensor(decided, raters, prompts), bootstrap, [OURS], [OURS, BASELINE])


def describe(study: Study, name: str) -> dict[str, Any]:
    """The study's fields in preferences.json."""
    return {
        "study": name,
        "raters_assigned": len(study.raters),
        "prompts_planned": len(study.prompts),
        "attention_rule": study.rule,
        **{
            key: getattr(study, key)
            for key in ("study_id", "ours", "baselines", "prompt_set", "prior", "representation")
        },
    }


def describe_votes(votes: pd.DataFrame, name: str, order: Sequence[str]) -> dict[str, Any]:
    """The same for judgements collected by another tool."""
    there = list(dict.fromkeys(votes["baseline"]))
    baselines = [method for method in order if method in there]
    return {
        "study": name,
        "study_id": None,
        "ours": str(votes["ours"].iloc[0]),
        "baselines": baselines + [method for method in there if method not in baselines],
        **dict.fromkeys(("prompt_set", "prior", "representation")),
        "raters_assigned": int(votes["rater_id"].nunique()),
        "prompts_planned": int(votes["prompt_id"].nunique()),
        "attention_rule": "Raters whose attention column says failed were dropped.",
    }


def sources(folder: Path, votes: Path, answers: Sequence[Answers]) -> dict[str, Any]:
    """Hashes of the inputs."""

    def sha256(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    names = [f"{ANSWERS}/{file.rater}.json" for file in answers]
    return {
        "study_sha256": sha256(folder / STUDY) if answers else None,
        "votes_sha256": sha256(votes),
        "answers": [{"file": name, "sha256": sha256(folder / name)} for name in names],
    }
