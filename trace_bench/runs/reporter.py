"""What a run tells while it works: metrics.jsonl, and a bar on a terminal or a line now and then."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from trace_bench.system.files import write_atomic

METRICS = "metrics.jsonl"
LINES_PER_RUN = 5
SECONDS_PER_LINE = (2.0, 30.0)  # not more often than, at least as often as
log = logging.getLogger(__name__)


class Reporter:
    """Reporter of one run's steps; a context manager.

    Args:
        folder: the run folder; metrics.jsonl loses its rows from `start` on, those steps are done again.
        label: what the bar and the lines call the run.
        seconds: what the steps before `start` took.
    """

    def __init__(self, folder: Path, label: str, steps: int, start: int = 0, seconds: float = 0.0) -> None:
        self.label, self.steps, self.start, self._before = label, steps, start, seconds
        keep_rows(folder / METRICS, start)
        self._file = (folder / METRICS).open("a", encoding="utf-8", buffering=1)
        self._bar = tqdm(
            total=steps, initial=start, desc=label, unit="step", disable=None, leave=False, dynamic_ncols=True
        )
        self._began = self._last_line = time.monotonic()
        self._next_mark = start + max(1, steps // LINES_PER_RUN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._file.close()

    @property
    def seconds(self) -> float:
        """Time spent in steps, earlier attempts' kept steps included."""
        return self._before + time.monotonic() - self._began

    def step(self, k: int, values: dict[str, float]) -> None:
        """Step k (0-based) is done; `values` is empty except at logging intervals."""
        self._bar.update()
        if not values:
            return
        rate = (k + 1 - self.start) / max(time.monotonic() - self._began, 1e-9)
        row: dict[str, Any] = {"step": k} | {name: _json(value) for name, value in values.items()}
        self._file.write(
            json.dumps(row | {"seconds": round(self.seconds, 3), "steps_per_s": round(rate, 2)}) + "\n"
        )
        name = "lora_loss" if "lora_loss" in values else next(iter(values))
        self._bar.set_postfix({name: f"{values[name]:.3g}"}, refresh=False)
        quiet = time.monotonic() - self._last_line
        is_mark = k + 1 >= self._next_mark and quiet > SECONDS_PER_LINE[0]
        if is_mark or quiet > SECONDS_PER_LINE[1] or k + 1 == self.steps:
            self._line(k, rate, f"{name} {values[name]:.4g}")

    def _line(self, k: int, rate: float, value: str) -> None:
        """One line: on the terminal only where there is no bar, in log.txt always."""
        self._last_line, self._next_mark = time.monotonic(), k + 1 + max(1, self.steps // LINES_PER_RUN)
        left = (self.steps - k - 1) / rate
        level = logging.INFO if self._bar.disable else logging.DEBUG
        log.log(
            level,
            "%s: step %d/%d, %.1f steps/s, %.0f s left, %s",
            self.label,
            k + 1,
            self.steps,
            rate,
            left,
            value,
        )


def keep_rows(path: Path, steps: int) -> None:
    """Drop the rows of steps that will be done again, and a last row that was cut off."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    kept = [line for line in lines if 0 <= _step(line) < steps]
    write_atomic(path, "".join(f"{line}\n" for line in kept))


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
