"""Comparative judgements as rows: Elo of GPTEval3D tournaments and preferences of user studies.

Reads `gpteval3d/<judge>/elo.json` (docs/gpteval3d.md) and `user_study/<name>/preferences.json`
(docs/user_study.md) in the output root.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from trace_bench.run_folder.reading import read_json
from trace_bench.system.errors import TraceBenchError

ELO_SCHEMA_VERSION, PREFERENCES_SCHEMA_VERSION = 1, 2
TEXTS = (
    "kind", "judge", "judge_name", "judge_kind", "tournament", "mode", "caption", "notes", "prompt_set",
    "prior", "method", "representation", "settings", "criterion", "note", "beats", "contestant",
    "study", "baseline", "aspect",
)  # fmt: skip
FLAGS = ("complete", "frozen", "regularised")


def read_judgements(root: Path) -> tuple[pd.DataFrame, list[str]]:
    """All rows, and error messages about unreadable files."""
    rows, problems = [], []
    sources: tuple[tuple[str, int, Callable[[Any], list[dict[str, Any]]]], ...] = (
        ("gpteval3d/*/elo.json", ELO_SCHEMA_VERSION, _elo_rows),
        ("user_study/*/preferences.json", PREFERENCES_SCHEMA_VERSION, _preference_rows),
    )
    for pattern, version, read in sources:
        for path in sorted(root.glob(pattern)):
            try:
                content = read_json(path)
                found = content["schema_version"]
                if found != version:
                    problems.append(
                        f"{path} has schema_version {found}, but {version} is required: write it again."
                    )
                    continue
                rows += read(content)
            except TraceBenchError as error:
                problems.append(str(error))
            except (KeyError, TypeError, AttributeError) as error:
                problems.append(f"{path} has an unknown format ({error}): write it again.")
    return _typed(pd.DataFrame(rows)), problems


def _elo_rows(content: dict[str, Any]) -> list[dict[str, Any]]:
    judge, rows = content["judge"], []
    for tournament in content["tournaments"]:
        common = {
            "kind": "elo",
            "judge": judge["id"],
            "judge_name": judge["name"],
            "judge_kind": judge["kind"],
            "tournament": tournament["name"],
            **{
                key: tournament[key] for key in ("mode", "prompt_set", "prior", "seed", "complete", "caption")
            },
            "notes": "\n".join(tournament["notes"]),
            "prompts": tournament["prompts"],
        }
        for row in tournament["rows"]:
            settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items())
            kept = (
                "contestant",
                "method",
                "representation",
                "criterion",
                "elo",
                "comparisons",
                "frozen",
                "regularised",
                "note",
            )
            low, high = row["ci_low"], row["ci_high"]
            rows.append(
                common
                | {key: row[key] for key in kept}
                | {
                    "settings": settings,
                    "elo_low": low,
                    "elo_high": high,
                    "beats": "\n".join(row.get("beats", ())),
                }
            )
    return rows


def _preference_rows(content: dict[str, Any]) -> list[dict[str, Any]]:
    common = {
        "kind": "preference",
        "study": content["study"],
        "method": content["ours"],
        **{key: content[key] for key in ("prompt_set", "prior", "representation")},
        "raters": content["raters"]["used"],
    }
    rows = []
    for row in content["rows"]:
        shares = {
            f"{name}_{bound}": row["percent"][name][bound]
            for name in ("ours", "tie", "baseline")
            for bound in ("value", "low", "high")
        }
        kept = {key: row[key] for key in ("aspect", "baseline", "votes", "prompts")}
        rows.append(common | kept | shares | {"sign_test_p": row["decided"]["sign_test_p"]})
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
