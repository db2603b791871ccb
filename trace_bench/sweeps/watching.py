"""Watching the runs that this process or its workers make."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from trace_bench.runs.identity import RunSpec
from trace_bench.sweeps.board import Board, Planned
from trace_bench.sweeps.budget import cost_of
from trace_bench.sweeps.display import Display, summary
from trace_bench.sweeps.interrupt import StopRequest
from trace_bench.sweeps.local import Ended
from trace_bench.system.text import one_line
from trace_bench.system.tracked import duration

_POLL_S = 0.2


class Watching:
    """The display of a plan's runs while they are made; a context manager.

    Args:
        plan: all runs of the command, in the order in which they start.
        missing: those of them to make.
        workers: processes that make runs.
        lanes: runs that each of them makes at the same time.
        stop: its first signal is announced.
    """

    def __init__(
        self,
        plan: Sequence[RunSpec],
        missing: Sequence[RunSpec],
        workers: int,
        stop: StopRequest,
        lanes: int = 1,
    ) -> None:
        self._runs = {run.folder: _planned(run) for run in plan}
        self._board = Board(self._runs, workers, lanes)
        left = {run.folder for run in missing}
        for folder in self._runs:
            if folder not in left:
                self._board.ended(folder, "done")
        self._display = Display(self._board.view)
        self._stop, self._over = stop, threading.Event()
        self._saying, self._said_stop = threading.Lock(), False
        self._announcing = threading.Thread(target=self._announce, daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._display.__enter__()
        self._announcing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._announcing.join()
        self._display.__exit__(kind, error, trace)
        if len(self._runs) > 1 and not self._stop():  # the command says itself what it leaves
            took = duration(time.monotonic() - self._began)
            self._display.say(f"{summary(self._board.view())} in {took}")

    def started(self, folder: Path) -> None:
        """A run starts."""
        self._board.started(folder)

    def ended(self, how: Ended) -> None:
        """A run has ended."""
        self._say_if_stopping()
        seconds = self._board.ended(how.folder, how.status)
        run = self._runs[how.folder]
        what = {"done": "Done", "skipped": "Done before", "preempted": "Interrupted"}.get(how.status)
        if what is not None:  # the others were said when it happened
            self.say(f"{what}: {run.method}, {one_line(run.prompt, 60)} ({duration(seconds)})")

    def say(self, text: str) -> None:
        """Print a message above the display."""
        self._display.say(text)

    def _announce(self) -> None:
        while not self._over.wait(_POLL_S) and not self._said_stop:
            self._say_if_stopping()

    def _say_if_stopping(self) -> None:
        """Say once what a signal does; runs may end before the next look at the signal."""
        with self._saying:
            if self._stop() and not self._said_stop:
                self._said_stop = True
                self.say(self._stop.what_it_does)


def _planned(run: RunSpec) -> Planned:
    choices = run.job.choices
    return Planned(choices["method"], choices["representation"], run.prompt.text, cost_of(run.job))
