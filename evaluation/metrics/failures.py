"""Why a run could not be scored: `scores/<metric>.error`, which tables and figures quote.

`evaluation.score` writes it where a metric fails, and removes it with the next score.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from evaluation.metrics.base import run_state
from trace_bench.run_folder.reading import Run
from trace_bench.system.files import write_atomic

_MOST = 20_000  # bytes; no reason is longer


def failure_path(run: Run, metric: str) -> Path:
    return run.folder / "scores" / f"{metric}.error"


def note_failure(run: Run, metric: str, reason: str) -> None:
    """Write why the run has no score of this metric; without it, the reason is only on the terminal."""
    content = json.dumps({"run": run_state(run), "reason": reason}, indent=1)
    with contextlib.suppress(OSError):
        failure_path(run, metric).parent.mkdir(exist_ok=True)
        write_atomic(failure_path(run, metric), content)


def forget_failure(run: Run, metric: str) -> None:
    with contextlib.suppress(OSError):
        failure_path(run, metric).unlink(missing_ok=True)


def read_failure(run: Run, metric: str) -> str | None:
    """The reason, if scoring failed for this state of the run."""
    try:
        with failure_path(run, metric).open(encoding="utf-8") as file:
            content = json.loads(file.read(_MOST))
        return str(content["reason"]) if content["run"] == run_state(run) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
