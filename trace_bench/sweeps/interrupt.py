"""Signals as a wish to stop: after the current step, with a checkpoint, not in the middle of things."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: What asks a run to stop: the scheduler, Ctrl-C, and Slurm's warning before a time limit or a preemption.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
GRACE_S = 3.0  # for a step and a checkpoint of each worker


class StopRequest:
    """False until a signal has come; calling it is the question."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __call__(self) -> bool:
        return self.signum is not None

    @property
    def exit_code(self) -> int:
        """128 + signal, as shells report it."""
        return 128 + (self.signum or signal.SIGTERM)

    def handle(self, signum: int, _frame: object) -> None:
        """The first signal is noted; one more stops at once, but for SIGTERM, which is passed on and may come
        to a whole group besides.
        """
        if self.signum == signum == signal.SIGTERM:
            return
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum
        what = "stopping after this step, with a checkpoint (one more Ctrl-C stops at once)"
        os.write(2, f"\n{signal.Signals(signum).name}: {what}\n".encode())


@contextlib.contextmanager
def listening() -> Iterator[StopRequest]:
    """Turn SIGNALS into a StopRequest while the block lasts; outside the main thread nothing is caught."""
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
    """While the block lasts a signal to this process stops the workers that it started, and then itself.

    A terminal sends Ctrl-C to all of them; of SIGTERM only the first process may know. The workers get the
    time that a step and a checkpoint take, unless Ctrl-C comes twice.
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
    """Processes that this one started and that have not ended."""
    return [
        int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()
    ]
