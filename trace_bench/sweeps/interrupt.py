"""Turns signals into a request to stop after the current step, with a checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: Signals that stop a run: the scheduler's, Ctrl-C, and Slurm's warning before a time limit or preemption.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
GRACE_S = 3.0  # time for each worker to finish a step and write a checkpoint


class StopRequest:
    """Calling it returns whether a signal has arrived."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __call__(self) -> bool:
        return self.signum is not None

    @property
    def exit_code(self) -> int:
        """128 + signal, as in shells."""
        return 128 + (self.signum or signal.SIGTERM)

    def handle(self, signum: int, _frame: object) -> None:
        """Record the first signal; a second one stops immediately. A second SIGTERM is ignored, because it
        may arrive twice: passed on by the parent and sent to the whole process group.
        """
        if self.signum == signum == signal.SIGTERM:
            return
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum
        what = "stopping after this step, with a checkpoint (press Ctrl-C again to stop immediately)"
        os.write(2, f"\n{signal.Signals(signum).name}: {what}\n".encode())


@contextlib.contextmanager
def listening() -> Iterator[StopRequest]:
    """Turn SIGNALS into a StopRequest during the block; catches nothing outside the main thread."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {signum: signal.signal(signum, stop.handle) for signum in SIGNALS}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def passing_on() -> Iterator[None]:
    """During the block, a signal to this process stops its worker processes and then this process.

    A terminal sends Ctrl-C to all of them, but SIGTERM may reach only the first process. The workers get time
    to finish a step and write a checkpoint, unless Ctrl-C is pressed twice.
    """
    asked = False

    def handle(signum: int, _frame: object) -> None:
        nonlocal asked
        workers = _children()
        if workers and not asked:
            asked = True
            if signum == signal.SIGTERM:
                for pid in workers:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signum)
            time.sleep(GRACE_S)
        raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _children() -> list[int]:
    """Ids of running child processes."""
    return [
        int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()
    ]
