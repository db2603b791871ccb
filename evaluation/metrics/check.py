"""What must hold of every metric; `trace-bench check metric=NAME` and the tests run these checks."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from evaluation.metrics.base import Metric, Score, score_path, score_run
from trace_bench.run_folder.reading import Run
from trace_bench.system.checks import Check, require

KINDS = ("mean", "average", "count")


@dataclass(frozen=True)
class Subject:
    """A metric and two finished runs of one prompt that it applies to, the second with an empty asset."""

    metric: Metric
    run: Run
    empty: Run


def declaration(subject: Subject) -> str:
    """Name, version, citation and quantities are there and well-formed."""
    metric = subject.metric
    for key in ("name", "version", "citation"):
        value = getattr(metric, key, None)
        require(isinstance(value, str) and value.strip(), f"{key} is {value!r}, not a text")
    quantities = getattr(metric, "quantities", ())
    require(isinstance(quantities, tuple) and quantities, "quantities is no tuple with at least one")
    names = [quantity.name for quantity in quantities]
    require(len(set(names)) == len(names), f"two quantities have one name: {', '.join(names)}")
    for quantity in quantities:
        require(quantity.kind in KINDS, f"{quantity.name} has kind {quantity.kind!r}: {', '.join(KINDS)}")
        require(quantity.label and quantity.note, f"{quantity.name} has no label or no note")
    return f"{metric.name} {metric.version}: {', '.join(names)}"


def inputs(subject: Subject) -> str:
    """The files exist; settings are JSON; weights are a text."""
    metric, run = subject.metric, subject.run
    require(metric.applies(run) is True, "applies does not say True for this run")
    files = metric.files(run)
    require(files, "files is empty: a score that depends on no file is never recomputed")
    missing = [str(path) for path in files if not path.is_file()]
    require(not missing, f"{', '.join(missing)} is missing")
    settings = metric.settings(run)
    require(isinstance(settings, dict), "settings is no dict")
    require(_is_json(settings), "settings are no JSON: plain numbers, texts, lists and dicts")
    require(isinstance(metric.weights(run), str), "weights is no text")
    return f"{len(files)} files; settings {', '.join(settings) or 'none'}"


def score(subject: Subject) -> str:
    """Each quantity has a value, a finite number or None; the score is JSON."""
    result = subject.metric.score(subject.run)
    _check(subject.metric, result)
    shown = ", ".join(f"{name} {value}" for name, value in list(result.values.items())[:3])
    return f"{shown}; {len(result.rows)} rows"


def empty_asset(subject: Subject) -> str:
    """An asset with nothing in it has a score too: None stands for undefined, never NaN."""
    result = subject.metric.score(subject.empty)
    _check(subject.metric, result)
    undefined = [name for name, value in result.values.items() if value is None]
    return f"undefined: {', '.join(undefined) or 'nothing'}"


def _check(metric: Metric, result: Score) -> None:
    for quantity in metric.quantities:
        name = quantity.name
        if name in result.inapplicable:
            require(quantity.partial, f"{name} is inapplicable, but not declared with partial=True")
            continue
        require(name in result.values, f"the score has no value for the quantity {name}")
    unknown = set(result.inapplicable) - {quantity.name for quantity in metric.quantities}
    require(not unknown, f"inapplicable names {', '.join(sorted(unknown))}, which is no quantity")
    for name, value in result.values.items():
        require(value is None or isinstance(value, (int, float)), f"{name} is {value!r}: use finite()")
        require(value is None or math.isfinite(value), f"{name} is {value}: give None for undefined")
    require(_is_json([result.rows, result.details]), "rows or details are no JSON: no arrays, no NaN")


def determinism(subject: Subject) -> str:
    """The same run has the same score, each time."""
    first, second = (subject.metric.score(subject.run) for _ in range(2))
    require(first == second, "two scores of one run differ")
    return "scored twice"


def cache(subject: Subject) -> str:
    """A score is kept in scores/ and recomputed only on demand; the rest of the folder stays unchanged."""
    metric, run = subject.metric, subject.run
    path = score_path(run, metric.name)
    path.unlink(missing_ok=True)
    before = _content(run)
    require(score_run(metric, run), "the first score was not computed")
    stored = path.read_text(encoding="utf-8")
    require(not score_run(metric, run), "settings, weights or files change from one call to the next")
    require(score_run(metric, run, force=True), "force=true computes nothing")
    require(path.read_text(encoding="utf-8") == stored, "a second score is written differently")
    path.unlink()
    require(_content(run) == before, "scoring changes the run folder")
    return f"scores/{metric.name}.json"


def _content(run: Run) -> dict[str, bytes]:
    files = (path for path in run.folder.rglob("*") if path.is_file())
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in files}


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


CHECKS: tuple[Check[Subject], ...] = (
    Check("name, version, citation, quantities", declaration),
    Check("files, settings, weights", inputs),
    Check("score file", cache),  # before any other scores the run, and may write into its folder
    Check("score", score),
    Check("an empty asset", empty_asset),
    Check("one run, one score", determinism),
)
