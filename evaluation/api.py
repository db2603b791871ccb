"""Scores and results for Python and notebooks; `evaluation` offers these functions as its own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig

from evaluation.metrics.base import Metric
from evaluation.metrics.load import load_metrics
from evaluation.metrics.score import score_all
from evaluation.results.collect import collect
from trace_bench.run_folder.reading import find_runs
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError


def score_runs(output_root: str | Path = "outputs", metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Score every finished run that has no up-to-date score, as `python -m evaluation.score` does.

    Args:
        output_root: the folder that holds runs/.
        metrics: names of conf/metric/, such as ["clip_score"]; None for all that the command takes.

    Returns:
        `read_results(output_root)`. What could not be scored is said by a warning.

    Raises:
        TraceBenchError: there is no such folder or metric.
    """
    root, chosen = _folder(output_root), _metrics(metrics)
    runs, problems = find_runs(root)
    outcome = score_all([run for run in runs if run.manifest.status == "done"], chosen)
    reasons = [f"{count} runs without a score: {reason}" for reason, count in outcome.unavailable.items()]
    _warn([*reasons, *outcome.problems, *problems])
    return collect(root, _metrics(None)).frame


def read_results(output_root: str | Path = "outputs") -> pd.DataFrame:
    """Everything that is known of the finished runs: a row a run, with settings, costs and scores.

    Args:
        output_root: the folder that holds runs/.

    Returns:
        The rows of kind `run` of `python -m evaluation.collect`; numbers are NaN where there is no score.
        `minutes` is wall-clock time; docs/evaluation.md defines the scores. Folders that could not be read
        are named by a warning.

    Raises:
        TraceBenchError: there is no such folder.
    """
    results = collect(_folder(output_root), _metrics(None))
    _warn(results.problems)
    return results.frame


def _folder(output_root: str | Path) -> Path:
    root = Path(output_root).expanduser()
    if not root.is_dir():
        raise TraceBenchError(f"There is no folder {root}: make assets first, or name the folder of theirs.")
    return root


def _metrics(names: Sequence[str] | None) -> dict[str, Metric]:
    overrides = [] if names is None else [f"metric=[{','.join(names)}]"]
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3", job_name="evaluation"):
            config: DictConfig = compose("evaluation", overrides)
    except HydraException as error:
        known = ", ".join(sorted(path.stem for path in Path(conf_dir(), "metric").glob("*.yaml")))
        raise TraceBenchError(f"metrics={names} are none; the metrics are {known}.") from error
    return load_metrics(config)


def _warn(problems: Sequence[str]) -> None:
    for problem in dict.fromkeys(problems):
        warnings.warn(problem, stacklevel=3)
