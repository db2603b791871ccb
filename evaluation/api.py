"""Scores and results for Python and notebooks; `evaluation` re-exports these functions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from evaluation.metrics.load import configured_metrics
from evaluation.metrics.score import score_all
from evaluation.results.collect import collect
from trace_bench.run_folder.index import read_index
from trace_bench.system.errors import TraceBenchError


def score_runs(output_root: str | Path = "outputs", metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Score the finished runs without an up-to-date score, like `python -m evaluation.score`.

    Args:
        output_root: the folder that contains runs/.
        metrics: names of conf/metric/, such as ["clip_score"]; None for the default metrics.

    Returns:
        `read_results(output_root)`. Warns about runs that could not be scored.

    Raises:
        TraceBenchError: there is no such folder or metric.
    """
    root, chosen = _folder(output_root), configured_metrics(metrics)
    index = read_index(root)
    outcome = score_all([run for run in index.runs.values() if run.manifest.status == "done"], chosen)
    reasons = [f"{count} runs without a score: {reason}" for reason, count in outcome.unavailable.items()]
    _warn([*reasons, *outcome.problems, *index.problems])
    return collect(root, configured_metrics()).frame


def read_results(output_root: str | Path = "outputs") -> pd.DataFrame:
    """Settings, costs and scores of the finished runs, one row per run.

    Args:
        output_root: the folder that contains runs/.

    Returns:
        The rows of kind `run` of `python -m evaluation.collect`; a missing score is NaN. `minutes` is
        the time of init, distilling and rendering, `minutes_shared` that of runs made side by side, and
        `minutes_of_loading` what a process pays once; docs/evaluation.md defines the scores.
        Warns about folders that cannot be read.

    Raises:
        TraceBenchError: there is no such folder.
    """
    results = collect(_folder(output_root), configured_metrics())
    _warn(results.problems)
    return results.frame


def _folder(output_root: str | Path) -> Path:
    root = Path(output_root).expanduser()
    if not root.is_dir():
        raise TraceBenchError(
            f"The folder {root} does not exist; make assets first, or name their output root."
        )
    return root


def _warn(problems: Sequence[str]) -> None:
    for problem in dict.fromkeys(problems):
        warnings.warn(problem, stacklevel=3)
