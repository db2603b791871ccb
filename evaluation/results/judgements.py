"""Comparative judgements as rows: Elo of GPTEval3D tournaments and preferences of user studies.

Reads `gpteval3d/<judge>/elo.json` (docs/gpteval3d.md) and `user_study/<name>/preferences.json`
(docs/user_study.md) in the output root.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from trace_bench.system.typed import Finite, FormatError, Integer, read_content, typed

ELO_SCHEMA_VERSION, PREFERENCES_SCHEMA_VERSION = 1, 2
TEXTS = (
    "kind", "judge", "judge_name", "judge_kind", "tournament", "mode", "caption", "notes", "prompt_set",
    "prior", "method", "representation", "settings", "criterion", "note", "beats", "contestant",
    "study", "baseline", "aspect",
)  # fmt: skip
_JUDGE_AGAIN = (
    "remove it and run `python -m evaluation.gpteval3d` again; paid answers are kept in answers.jsonl"
)
_STUDY_AGAIN = (
    "write it again with `python -m evaluation.user_study mode=results`; the raters' answers are kept"
)
FLAGS = ("complete", "frozen", "regularised", "maximises")


def read_judgements(root: Path) -> tuple[pd.DataFrame, list[str]]:
    """All rows, and one sentence for each file that cannot be used."""
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    sources: tuple[tuple[str, int, TypeAdapter[Any], Callable[[Any], list[dict[str, Any]]], str], ...] = (
        ("gpteval3d/*/elo.json", ELO_SCHEMA_VERSION, TypeAdapter(_Elo), _elo_rows, _JUDGE_AGAIN),
        (
            "user_study/*/preferences.json", PREFERENCES_SCHEMA_VERSION, TypeAdapter(_Preferences), _shares,
            _STUDY_AGAIN,
        ),
    )  # fmt: skip
    for pattern, version, adapter, rows_of, again in sources:
        for path in sorted(root.glob(pattern)):
            try:
                content = read_content(path, again)
                found = typed(TypeAdapter(_Version), content, path, again).schema_version
                if found == version:
                    rows += rows_of(typed(adapter, content, path, again))
                else:
                    problems.append(f"{path} has schema_version {found}, but {version} is required: {again}.")
            except FormatError as error:
                problems.append(str(error))
    return _typed(pd.DataFrame(rows)), problems


@dataclass(frozen=True)
class _Version:
    schema_version: Integer


@dataclass(frozen=True)
class _Judge:
    id: str
    name: str
    kind: str


@dataclass(frozen=True)
class _Rating:
    """One contestant on one criterion."""

    contestant: str
    method: str
    representation: str | None
    settings: dict[str, Any]
    criterion: str
    elo: Finite | None
    ci_low: Finite | None
    ci_high: Finite | None
    comparisons: Integer
    frozen: bool
    regularised: bool
    note: str | None
    beats: list[str] = field(default_factory=list)  # contestants that it is decidedly better than
    optimised: bool = False  # its method maximises what the judge compares


@dataclass(frozen=True)
class _Tournament:
    name: str
    mode: str
    prompt_set: str
    prior: str
    seed: Integer | None
    complete: bool
    caption: str
    notes: list[str]
    prompts: Integer
    rows: list[_Rating]


@dataclass(frozen=True)
class _Elo:
    """What the frame needs of elo.json."""

    judge: _Judge
    tournaments: list[_Tournament]


def _elo_rows(content: _Elo) -> list[dict[str, Any]]:
    judge, rows = content.judge, []
    for tournament in content.tournaments:
        common = {"kind": "elo", "judge": judge.id, "judge_name": judge.name, "judge_kind": judge.kind}
        common |= {"tournament": tournament.name, "notes": "\n".join(tournament.notes)}
        names = ("mode", "prompt_set", "prior", "seed", "complete", "caption", "prompts")
        common |= {name: getattr(tournament, name) for name in names}
        for row in tournament.rows:
            kept = asdict(row)
            low, high, settings, beats = (kept.pop(key) for key in ("ci_low", "ci_high", "settings", "beats"))
            own = kept.pop("optimised")
            text = ", ".join(f"{key} {value}" for key, value in settings.items())
            rows.append(
                common
                | kept
                | {"settings": text, "elo_low": low, "elo_high": high, "beats": "\n".join(beats)}
                | {"maximises": own}
            )
    return rows


@dataclass(frozen=True)
class _Estimate:
    value: Finite | None
    low: Finite | None
    high: Finite | None


@dataclass(frozen=True)
class _Percent:
    ours: _Estimate
    tie: _Estimate
    baseline: _Estimate


@dataclass(frozen=True)
class _Decided:
    sign_test_p: Finite | None


@dataclass(frozen=True)
class _Preference:
    """The votes for one baseline and aspect."""

    aspect: str
    baseline: str
    votes: Integer
    prompts: Integer
    percent: _Percent
    decided: _Decided


@dataclass(frozen=True)
class _Raters:
    used: Integer


@dataclass(frozen=True)
class _Preferences:
    """What the frame needs of preferences.json."""

    study: str
    ours: str
    prompt_set: str | None  # None: votes collected by another tool
    prior: str | None
    representation: str | None
    raters: _Raters
    rows: list[_Preference]


def _shares(content: _Preferences) -> list[dict[str, Any]]:
    common = {"kind": "preference", "study": content.study, "method": content.ours}
    common |= {name: getattr(content, name) for name in ("prompt_set", "prior", "representation")}
    rows = []
    for row in content.rows:
        shares = {
            f"{name}_{bound}": value
            for name, estimate in asdict(row.percent).items()
            for bound, value in estimate.items()
        }
        kept = {name: getattr(row, name) for name in ("aspect", "baseline", "votes", "prompts")}
        rows.append(
            common | {"raters": content.raters.used} | kept | shares
            | {"sign_test_p": row.decided.sign_test_p}
        )  # fmt: skip
    return rows


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Set column types explicitly, so that the schema does not depend on the available rows."""
    for column in frame.columns:
        if column in TEXTS:
            frame[column] = frame[column].astype("string")
        else:
            frame[column] = (
                frame[column].astype("boolean") if column in FLAGS else pd.to_numeric(frame[column])
            )
    return frame
