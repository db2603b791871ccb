"""user_study.csv: one row per judgement, in a format that other survey tools can write too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from evaluation.results.csv_text import read_csv
from evaluation.user_study.answers import Answers
from evaluation.user_study.aspects import ASPECT_IDS, CHOICES, SIDES
from evaluation.user_study.attention import EMPTY, FAILED, PASSED, verdict
from evaluation.user_study.study import COMPARISON, Study
from trace_bench.system.errors import UNREADABLE, TraceBenchError

VOTES = "user_study.csv"
COLUMNS = [
    "study_id", "rater_id", "prompt_id", "prompt", "ours", "baseline", "aspect", "left_method", "choice",
    "presented_index", "seconds", "attention",
]  # fmt: skip
OPTIONAL = {"study_id", "prompt", "presented_index", "seconds", "attention"}
OUTCOMES = ("ours", "tie", "unknown", "baseline")


def votes_of(study: Study, answers: Iterable[Answers]) -> pd.DataFrame:
    """All judgements except attention checks; `attention` is the verdict on the rater's session."""
    rows = []
    for file in answers:
        trials = study.trials[file.rater]
        attention, _, _ = verdict(trials, file.by_trial(), study.max_failed_checks)
        for answer in file.answers:
            trial = trials[answer.trial]
            if trial.kind != COMPARISON:
                continue
            prompt = study.prompts[trial.prompt]
            baseline = trial.right if trial.left == study.ours else trial.left
            rows += [
                [study.study_id, file.rater, prompt["id"], prompt["text"], study.ours, baseline, aspect,
                 trial.left, answer.choices[aspect], answer.trial, round(answer.ms / 1000, 1), attention]
                for aspect in ASPECT_IDS
            ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def read_votes(path: Path) -> pd.DataFrame:
    """The judgements of a CSV, all columns as strings, with `outcome` (one of OUTCOMES) added.

    Raises: TraceBenchError for an invalid file or invalid rows; the message names the first such row.
    """
    try:
        frame = read_csv(path)
    except FileNotFoundError:
        raise TraceBenchError(f"There is no file {path}: set votes=FILE to a CSV of judgements.") from None
    except (OSError, *UNREADABLE) as error:
        raise TraceBenchError(
            f"{path} cannot be read as CSV ({error}): see docs/user_study.md for its columns."
        ) from error
    missing = [name for name in COLUMNS if name not in frame.columns and name not in OPTIONAL]
    if missing:
        raise TraceBenchError(
            f"{path} has no column {', '.join(missing)}: see docs/user_study.md for the required columns."
        )
    for name in OPTIONAL - set(frame.columns):
        frame[name] = ""
    return check_votes(frame, str(path))


def check_votes(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Raise for invalid rows, and add `outcome`."""
    empty = (frame[["rater_id", "prompt_id", "ours", "baseline"]] == "").any(axis=1)
    _refuse(frame, empty, where, "rater_id, prompt_id, ours and baseline must not be empty")
    _refuse(frame, ~frame["aspect"].isin(ASPECT_IDS), where, f"aspect must be one of {', '.join(ASPECT_IDS)}")
    _refuse(frame, ~frame["choice"].isin(CHOICES), where, f"choice must be one of {', '.join(CHOICES)}")
    _refuse(frame, frame["ours"] == frame["baseline"], where, "ours and baseline must be different methods")
    _refuse(
        frame, frame["ours"] != frame["ours"].iloc[:1].squeeze(), where, "ours must be the same in all rows"
    )
    shown = (frame["left_method"] == frame["ours"]) | (frame["left_method"] == frame["baseline"])
    _refuse(frame, ~shown, where, "left_method must be ours or baseline")
    valid = frame["attention"].isin([PASSED, FAILED, EMPTY])
    _refuse(frame, ~valid, where, f"attention must be {PASSED}, {FAILED} or empty")
    mixed = frame.groupby("rater_id")["attention"].transform("nunique") > 1
    _refuse(frame, mixed, where, "attention must be the same in all rows of a rater")
    twice = frame.duplicated(["rater_id", "prompt_id", "baseline", "aspect"])
    _refuse(frame, twice, where, "a rater may judge each prompt, baseline and aspect only once")
    ours_side = frame["left_method"].eq(frame["ours"]).map({True: SIDES[0], False: SIDES[1]})
    outcome = frame["choice"].where(~frame["choice"].isin(SIDES), "baseline")
    return frame.assign(outcome=outcome.mask(frame["choice"] == ours_side, "ours"))


def _refuse(frame: pd.DataFrame, wrong: pd.Series, where: str, rule: str) -> None:
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        values = {
            name: frame[name].iloc[row] for name in ("rater_id", "prompt_id", "baseline", "aspect", "choice")
        }
        said = ", ".join(f"{name} {value!r}" for name, value in values.items())
        raise TraceBenchError(f"{where}, row {row + 2} ({said}): {rule}; {int(wrong.sum())} invalid rows.")
