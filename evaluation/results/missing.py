"""Why runs have no score, as sentences that say what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from evaluation.metrics.base import Metric, score_path
from evaluation.metrics.failures import read_failure
from evaluation.metrics.score_file import read_score_file
from evaluation.results.collect import Results
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.text import one_line
from trace_bench.system.typed import FormatError

_REASONS = 3  # of one metric in one table; the next ones are counted


def why_no_score(metric: Metric, run: Run, results: Results) -> str:
    """The reason why a finished run has no score that counts, as a sentence without its point."""
    reason = read_failure(run, metric.name)
    if reason is not None:
        return f"scoring failed: {one_line(reason).rstrip('.')}"
    try:
        if not metric.applies(run):
            return f"none is possible: {metric.left_out}"
    except TraceBenchError as error:
        return one_line(str(error)).rstrip(".")
    do = results.command(f"evaluation.score metric=[{metric.name}]")
    path = score_path(run, metric.name)
    if path.is_file():
        try:
            read_score_file(path)
        except FormatError:
            return f"its score file is damaged: {do} makes it again"
        return f"the score is of an earlier state of the run or version of the metric: {do} makes it again"
    return f"not scored yet: {do} does it"


def notes_on_scores(
    frame: pd.DataFrame, metrics: Mapping[str, Metric], results: Results, prior: str | None = None
) -> list[str]:
    """One sentence for each metric and reason, about the runs in `frame`.

    A metric that no run has is left out if it does not concern the `prior`.
    """
    notes: list[str] = []
    for name, metric in metrics.items():
        judges = frame[f"{name}_judge"]
        without = frame[judges.isna()]
        if len(without) and (len(without) < len(frame) or prior is None or metric.concerns(prior)):
            notes += _counted(name, metric, without["folder"], len(frame), results)
        if judges.nunique() > 1:
            notes += _failed_since(name, frame.loc[judges.notna(), "folder"], results)
        notes += _undefined(metric, frame[judges.notna()])
    return notes


def _counted(name: str, metric: Metric, folders: Iterable[str], of: int, results: Results) -> Iterator[str]:
    found: dict[str, int] = {}
    for folder in folders:
        run = results.runs.get(str(folder))
        reason = why_no_score(metric, run, results) if run else "its run folder is gone"
        found[reason] = found.get(reason, 0) + 1
    ordered = sorted(found.items(), key=lambda item: -item[1])
    for reason, count in ordered[:_REASONS]:
        have = "run has" if count == 1 else "runs have"
        yield f"{name}: {count} of {of} {have} no score; {reason}."
    if rest := sum(count for _, count in ordered[_REASONS:]):
        yield f"{name}: {rest} more have no score; {results.command('evaluation.score')} names each reason."


def _failed_since(name: str, folders: Iterable[str], results: Results) -> Iterator[str]:
    """Scores of another judge that could not be made again."""
    runs = [results.runs[str(folder)] for folder in folders if str(folder) in results.runs]
    reasons = [reason for run in runs if (reason := read_failure(run, name)) is not None]
    for reason in list(dict.fromkeys(reasons))[:_REASONS]:
        yield f"{name}: {reasons.count(reason)} could not be scored again: {one_line(reason).rstrip('.')}."


def _undefined(metric: Metric, scored: pd.DataFrame) -> Iterator[str]:
    """Numbers that a score leaves undefined, although they apply to the run."""
    labels: dict[int, list[str]] = {}
    for quantity in metric.quantities:
        applies = f"{quantity.name}_applies"
        missing = scored[quantity.name].isna()
        if quantity.partial:
            missing &= scored[applies] != 0
        if missing.any() and not missing.all():
            labels.setdefault(int(missing.sum()), []).append(quantity.label)
    for count, names in labels.items():
        yield (
            f"{', '.join(names)}: undefined for {count} of {len(scored)} scored runs, because the asset is "
            "empty there or the metric has no such number for it; scoring again changes nothing."
        )
