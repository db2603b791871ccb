"""What only a run's own page shows, one script a run: curves, configuration, scores per view, answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics.base import Metric, score_path
from evaluation.metrics.score_file import ScoreFile, read_score_file
from evaluation.report.paths import scrubbed, setting
from evaluation.results.variants import flat_config
from trace_bench.run_folder.reading import DIFF, Run
from trace_bench.system.files import content_of
from trace_bench.system.typed import FormatError

_POINTS = 400  # of a curve
_LARGEST_LOG = 64 * 2**20  # bytes
_LONGEST_VALUE = 2000  # characters of a setting: a prompt set lists all its prompts
_LONGEST_DIFF = 500_000  # characters
_CLOCK = ("step", "seconds", "steps_per_s")


def details(
    run: Run,
    metrics: Mapping[str, Metric],
    answers: Sequence[Mapping[str, Any]],
    problems: list[str],
    over: Mapping[int, Run] | None = None,
    with_diff: bool = False,
) -> dict[str, Any]:
    """The content of a run's script file; files that cannot be read are told in `problems`.

    over: the asset after some numbers of steps, by number.
    with_diff: with the uncommitted changes of the code, which may hold anything.
    """
    manifest = run.manifest
    environment = manifest.environment
    return {
        "seconds": dict(manifest.seconds),
        "cost": {key: value for key, value in manifest.cost.items() if value is not None},
        "identity": {key: str(value) for key, value in vars(run.identity).items() if key != "prompt"},
        "rig": {k: v for k, v in manifest.rig.items() if k in ("elevation_deg", "distance", "fovy_deg")},
        "facts": {
            "Fingerprint": manifest.fingerprint,
            "Started": manifest.started,
            "Finished": manifest.finished,
            "Attempts": manifest.attempts,
            "Primitives": manifest.n_primitives,
            "Peak memory (GB)": manifest.peak_memory_gb,
            "Device": environment.get("gpu") or environment.get("cpu"),
            "trace_bench": environment.get("trace_bench"),
            "Commit": _commit(environment),
            "Changes (SHA-256)": environment.get("diff_sha256"),
            "Prompt cut": "its last words did not fit the text encoder" if manifest.prompt_cut else None,
            "Source": scrubbed(manifest.declared.get("source")),
        },
        "versions": dict(environment.get("packages") or {}),
        "config": _config(run.folder / "config.yaml", problems),
        "diff": _diff(run.folder / DIFF, problems) if with_diff else None,
        "curves": curves(run.folder / "metrics.jsonl"),
        "views": _views(run, metrics, problems),
        "over": _over_the_run(over or {}, metrics, problems),
        "answers": list(answers),
    }


def _commit(environment: Mapping[str, Any]) -> str | None:
    commit = environment.get("commit")
    return f"{commit}{' with changes' if environment.get('dirty') else ''}" if commit else None


def _config(path: Path, problems: list[str]) -> dict[str, str]:
    """All settings but the output root; of a path, the last part."""
    found = flat_config(path, problems, skipped=("output_root",))
    return {
        key: _shortened(value if key.startswith("prompt") else setting(value), _LONGEST_VALUE)
        for key, value in found.items()
    }


def _diff(path: Path, problems: list[str]) -> str | None:
    """The uncommitted changes of the code; None where there are none."""
    try:
        return _shortened(content_of(path).decode(errors="replace"), _LONGEST_DIFF)
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"{path} cannot be read ({error.strerror or error}).")
        return None


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … (cut: the run folder has all {len(text):,} characters)"


def curves(path: Path) -> dict[str, list[float | None]]:
    """The numbers of metrics.jsonl by name, each as long as `step`; every k-th row of a long file."""
    try:
        if path.stat().st_size > _LARGEST_LOG:
            return {}
        lines = content_of(path).decode(errors="replace").splitlines()
    except OSError:
        return {}
    rows = [row for row in map(_row, lines) if row is not None]
    rows = rows[:: max(1, math.ceil(len(rows) / _POINTS))]
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value))
    found = {name: [_rounded(row.get(name)) for row in rows] for name in names}
    return {
        name: values for name, values in found.items() if name in _CLOCK or any(v is not None for v in values)
    }


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:  # a line cut off by a killed program
        return None
    return row if isinstance(row, dict) and _is_number(row.get("step")) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _rounded(value: Any) -> float | None:
    return float(f"{value:.5g}") if _is_number(value) and math.isfinite(value) else None


def _views(run: Run, metrics: Mapping[str, Metric], problems: list[str]) -> dict[str, dict[str, float]]:
    """Label of a number per view -> view -> value, of the score files of this state of the run."""
    found: dict[str, dict[str, float]] = {}
    for metric in metrics.values():
        labels = {quantity.name: quantity.label for quantity in metric.quantities}
        score = _score(run, metric, problems)
        if score is None:
            continue
        named = {name for row in score.rows for name in row if name in labels}
        for row in score.rows:
            for name, value in row.items():
                is_shown = name in named or (not named and name not in ("view", "azimuth_deg"))
                if is_shown and _is_number(value) and math.isfinite(value):
                    label = labels.get(name, f"{name.replace('_', ' ')} ({metric.name})")
                    found.setdefault(label, {})[str(row.get("view"))] = float(f"{value:.4g}")
    return found


def _over_the_run(
    over: Mapping[int, Run], metrics: Mapping[str, Metric], problems: list[str]
) -> dict[str, list[float | None]]:
    """Label of the first number of each metric -> its value after each number of steps."""
    found: dict[str, list[float | None]] = {}
    for metric in metrics.values():
        main = [q for q in metric.quantities if q.kind == "mean" and not q.partial]
        scores = [_score(run, metric, problems) for run in over.values()]
        for quantity in main[:1]:
            values = [
                None if score is None else _rounded(score.values.get(quantity.name)) for score in scores
            ]
            if any(value is not None for value in values):
                found[quantity.label] = values
    return found


def _score(run: Run, metric: Metric, problems: list[str]) -> ScoreFile | None:
    """The score file of this state of a run, if there is one."""
    path = score_path(run, metric.name)
    if not path.exists():
        return None
    try:
        score = read_score_file(path)
    except FormatError as error:
        problems.append(str(error))
        return None
    state = {"fingerprint": run.manifest.fingerprint, "finished": run.manifest.finished}
    return None if score is None or score.run != state else score
