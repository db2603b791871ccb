"""Turns signals into a request to stop after the current step, with a checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

#: Signals that stop a run: the scheduler's, Ctrl-C, and Slurm's warning before a time limit or preemption.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


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
