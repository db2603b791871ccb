"""Progress of a run: metrics.jsonl, the line of the display, and a log line from time to time."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter

from trace_bench.run_folder.live import Live, LiveFile
from trace_bench.system.files import write_atomic
from trace_bench.system.typed import FormatError, Integer, parse

METRICS = "metrics.jsonl"
LINES_PER_RUN = 5
SECONDS_PER_LINE = (2.0, 30.0)  # minimum and maximum time between log lines
log = logging.getLogger(__name__)


class Reporter:
    """Reports one run's steps; a context manager.

    Args:
        folder: the run folder; rows of metrics.jsonl from `start` on are dropped, as those steps run again.
        label: name of the run in the log lines.
        seconds: time of the steps before `start`.
        clock: the run's own time, which `seconds` counts; rates are those of the wall clock.
        live: told of every step.
    """

    def __init__(
        self,
        folder: Path,
        label: str,
        steps: int,
        start: int = 0,
        seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        live: LiveFile | None = None,
    ) -> None:
        self.label, self.steps, self.start, self._before = label, steps, start, seconds
        self._clock = clock
        self._live = LiveFile(folder) if live is None else live
        self._value: tuple[str, float | None] = ("", None)
        keep_rows(folder / METRICS, start)
        self._file = (folder / METRICS).open("a", encoding="utf-8", buffering=1)
        self._began, self._shown, self._last_line = clock(), time.monotonic(), time.monotonic()
        self._next_mark = start + max(1, steps // LINES_PER_RUN)
        self._live.update(Live("distill", start, steps))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def seconds(self) -> float:
        """Time spent in steps, including the steps kept from earlier attempts."""
        return self._before + self._clock() - self._began

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leave the block's time out of the time spent in steps."""
        began, shown = self._clock(), time.monotonic()
        try:
            yield
        finally:
            self._began += self._clock() - began
            self._shown += time.monotonic() - shown

    def step(self, k: int, values: dict[str, float]) -> None:
        """Report that step k (0-based) is done; `values` is empty except at logging intervals."""
        rate = (k + 1 - self.start) / max(time.monotonic() - self._shown, 1e-9)
        if values:
            name = "lora_loss" if "lora_loss" in values else next(iter(values))
            self._value = name, _json(values[name])
        self._live.update(Live("distill", k + 1, self.steps, rate, *self._value))
        if not values:
            return
        row: dict[str, Any] = {"step": k} | {name: _json(value) for name, value in values.items()}
        self._file.write(
            json.dumps(row | {"seconds": round(self.seconds, 3), "steps_per_s": round(rate, 2)}) + "\n"
        )
        quiet = time.monotonic() - self._last_line
        is_mark = k + 1 >= self._next_mark and quiet > SECONDS_PER_LINE[0]
        if is_mark or quiet > SECONDS_PER_LINE[1] or k + 1 == self.steps:
            self._line(k, rate, f"{name} {values[name]:.4g}")

    def _line(self, k: int, rate: float, value: str) -> None:
        """One log line."""
        self._last_line, self._next_mark = time.monotonic(), k + 1 + max(1, self.steps // LINES_PER_RUN)
        left = (self.steps - k - 1) / rate
        log.info(
            "%s: step %d/%d, %.1f steps/s, %.0f s left, %s",
            self.label,
            k + 1,
            self.steps,
            rate,
            left,
            value,
        )


def keep_rows(path: Path, steps: int) -> None:
    """Drop the rows of steps that will run again, and what is no row: an incomplete last one, or damage."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    kept = [line + b"\n" for line in lines if 0 <= _step(line) < steps]
    write_atomic(path, b"".join(kept))


def _step(line: bytes) -> int:
    try:
        return parse(_rows(), line).step
    except FormatError:
        return -1


@dataclass(frozen=True)
class _Row:
    step: Integer


@cache
def _rows() -> TypeAdapter[_Row]:
    return TypeAdapter(_Row)


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
