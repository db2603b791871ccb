"""The study's key: what was shown to whom, under which name. It stays with the people who run the study.

`study.json` holds settings, prompts, clips, and raters with their tokens; `assignment.csv` has a row per
rater and screen.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.results.csv_text import csv_text, read_csv
from evaluation.user_study.ordering import digest
from evaluation.user_study.tokens import ALPHABET
from trace_bench.run_folder.reading import read_json
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic, write_json

SCHEMA_VERSION = 3
STUDY, ASSIGNMENT, PAGE, CLIPS, RATERS = "study.json", "assignment.csv", "page", "clips", "raters.csv"
_RESTORE = (
    f"restore {STUDY} and {ASSIGNMENT}, which belong together, from a copy, or make another with study=NAME"
)
COMPARISON, INSTRUCTED, SCRAMBLED = "comparison", "instructed", "scrambled"
COLUMNS = ["rater", "trial", "kind", "prompt", "left", "right", "expected"]


@dataclass(frozen=True)
class Trial:
    """One screen. `left` and `right` are methods, or "scrambled" in an attention check of that kind."""

    kind: str
    prompt: int  # index in Study.prompts
    left: str
    right: str
    expected: str = ""  # the side that an attention check expects


@dataclass(frozen=True)
class Clip:
    """A video with its opaque name and its source."""

    file: str
    sha256: str
    run: str  # folder relative to the output root
    fingerprint: str


@dataclass
class Study:
    study_id: str
    key: str  # seed of all random orders; not derivable from the page
    ours: str
    baselines: list[str]
    prompt_set: str
    prior: str
    representation: str
    settings: dict[str, Any]  # as configured when the study was made
    prompts: list[dict[str, str]]  # id, text
    left_out: list[str]  # ids of prompts that lack a turntable of some method
    clips: dict[str, Clip]  # "<prompt index>/<method>"
    max_failed_checks: int
    raters: list[str] = field(default_factory=list)  # codes, which name the raters in all files
    tokens: dict[str, str] = field(default_factory=dict)  # rater -> secret
    trace_bench: str = ""
    assignment_sha256: str = ""
    schema_version: int = SCHEMA_VERSION
    trials: dict[str, list[Trial]] = field(default_factory=dict)  # rater -> screens; stored in assignment.csv

    @property
    def methods(self) -> list[str]:
        return [self.ours, *self.baselines]

    def clip(self, prompt: int, name: str) -> str:
        """File name of a clip."""
        return self.clips[f"{prompt}/{name}"].file

    @property
    def rule(self) -> str:
        """The rule for dropping raters, in one sentence."""
        if not any(trial.kind != COMPARISON for trials in self.trials.values() for trial in trials):
            return "No rater was dropped: the study has no attention checks."
        return (
            f"Raters who failed more than {self.max_failed_checks} attention checks, or saw none, were "
            "dropped; the rule was fixed when the study was made."
        )


def code_of(key: str, rater: int, length: int = 6) -> str:
    """A rater's code."""
    number = int(digest(key, "rater", rater), 16)
    return "".join(ALPHABET[number // len(ALPHABET) ** i % len(ALPHABET)] for i in range(length))


def assignment_csv(study: Study) -> str:
    rows = [
        [rater, i, t.kind, t.prompt, t.left, t.right, t.expected]
        for rater, trials in study.trials.items()
        for i, t in enumerate(trials)
    ]
    return csv_text(pd.DataFrame(rows, columns=COLUMNS))


def save_study(study: Study, folder: Path) -> None:
    """Write assignment.csv, raters.csv and, last, study.json."""
    text = assignment_csv(study)
    study.assignment_sha256 = hashlib.sha256(text.encode()).hexdigest()
    write_atomic(folder / ASSIGNMENT, text)
    links = pd.DataFrame({"rater": study.raters})
    links["screens"] = [len(study.trials[rater]) for rater in study.raters]
    links["token"] = [study.tokens[rater] for rater in study.raters]
    links["link"] = [f"{PAGE}/index.html#{study.tokens[rater]}" for rater in study.raters]
    write_atomic(folder / RATERS, csv_text(links))
    content = asdict(study)
    del content["trials"]
    write_json(folder / STUDY, content)


def load_study(folder: Path) -> Study:
    """Read what `save_study` wrote.

    Raises: TraceBenchError if there is no study, or if its two files do not belong together.
    """
    path = folder / STUDY
    if not path.is_file():
        raise TraceBenchError(
            f"There is no study in {folder}: make one with `python -m evaluation.user_study`, "
            "or choose an existing one with study=NAME."
        )
    content = read_json(path, _RESTORE)
    try:
        if content["schema_version"] != SCHEMA_VERSION:
            raise TraceBenchError(
                f"{path} has schema_version {content['schema_version']}, but {SCHEMA_VERSION} is required: "
                "make a new study with study=NAME, or use the version of trace_bench that made this one."
            )
        known = {f.name: content[f.name] for f in fields(Study) if f.name != "trials"}
        study = Study(**{**known, "clips": {name: Clip(**clip) for name, clip in known["clips"].items()}})
        if set(study.tokens) != set(study.raters) or not all(
            isinstance(t, str) for t in study.tokens.values()
        ):
            raise ValueError("not every rater has a token")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TraceBenchError(
            f"{path} is not a valid study file ({type(error).__name__}: {error}): {_RESTORE}."
        ) from error
    study.trials = _load_trials(folder / ASSIGNMENT, study.assignment_sha256)
    return study


def _load_trials(path: Path, sha256: str) -> dict[str, list[Trial]]:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise TraceBenchError(
            f"{path} does not belong to the {STUDY} next to it: "
            "restore the two files that were written together."
        )
    frame = read_csv(io.StringIO(text))
    trials: dict[str, list[Trial]] = {}
    for row in frame.itertuples(index=False):
        trials.setdefault(row.rater, []).append(
            Trial(row.kind, int(row.prompt), row.left, row.right, row.expected)
        )
    return trials
