"""Which runs may enter the leaderboard: complete sets, scored, with known weights, all of one version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from evaluation.metrics.base import Metric
from scripts.leaderboard.rows import Board
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError


def versions_of(runs: Sequence[Run], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """What all rows of the leaderboard must share; raises if the runs do not."""
    found = [
        {
            "trace_bench": run.manifest.environment.get("trace_bench"),
            "prior": _weights(run),
            "rig": run.manifest.rig,
        }
        for run in runs
    ]
    for run, own in zip(runs, found, strict=True):
        if own != found[0]:
            key = next(name for name in own if own[name] != found[0][name])
            raise TraceBenchError(
                f"{run.folder} and {runs[0].folder} differ in {_NAMES[key]} ({_short(own[key])} and "
                f"{_short(found[0][key])}), so they do not belong in "
                "one table; run one of them again with force=true."
            )
    return found[0] | {"metrics": {name: metric.version for name, metric in metrics.items()}}


_NAMES = {
    "trace_bench": "the version of trace_bench", "prior": "the prior's weights",
    "rig": "the evaluation cameras",
    "metrics": "the versions of the metrics", "judges": "the weights or settings of the metrics",
}  # fmt: skip


def _weights(run: Run) -> str:
    sha256 = run.manifest.prior.get("sha256")
    if not sha256:
        raise TraceBenchError(
            f"{run.folder} does not say the sha256 of its prior's weights, so nobody could check it; "
            "run it again with a prior in a local folder or with a pinned revision."
        )
    return str(sha256)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def check_versions(board: Board, versions: Mapping[str, Any]) -> None:
    """Raise if new rows and those of the file were made by different versions."""
    for key, old in board.versions.items():
        if versions.get(key) != old:
            raise TraceBenchError(
                f"The leaderboard has {_NAMES[key]} {_short(old)}, the new rows {_short(versions.get(key))}: "
                "use the version of the file, or make all rows again with "
                "`python scripts/make_leaderboard.py --anew`."
            )


def judges_of(frame: pd.DataFrame, metrics: Mapping[str, Metric]) -> dict[str, str]:
    """The judge of each metric; raises unless every run has a score, all from one judge."""
    found = {}
    for name in metrics:
        column = frame[f"{name}_judge"]
        if column.isna().any():
            folder = frame.loc[column.isna(), "folder"].iloc[0]
            raise TraceBenchError(
                f"{int(column.isna().sum())} of {len(frame)} runs have no {name}, such as {folder}; "
                "`python -m evaluation.score` says why."
            )
        if column.nunique() > 1:
            raise TraceBenchError(
                f"{name} was computed with {column.nunique()} sets of weights or settings; "
                "score all runs with one."
            )
        found[name] = str(column.iloc[0])
    return found
