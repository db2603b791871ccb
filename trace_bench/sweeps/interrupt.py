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

    def __init__(self, says: bool = True) -> None:
        self.signum: int | None = None
        self._says = says  # on standard error, what the first signal does

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
        if self._says:
            with contextlib.suppress(OSError):  # a worker whose parent is gone
                os.write(2, f"\n{self.what_it_does}\n".encode())

    @property
    def what_it_does(self) -> str:
        """What the first signal does."""
        name = signal.Signals(self.signum or signal.SIGTERM).name
        return f"{name}: stopping after this step, with a checkpoint (press Ctrl-C again to stop immediately)"


@contextlib.contextmanager
def listening(says: bool = True) -> Iterator[StopRequest]:
    """Turn SIGNALS into a StopRequest during the block; catches nothing outside the main thread.

    says: print what a signal does; False if a display does it.
    """
    stop = StopRequest(says)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {signum: signal.signal(signum, stop.handle) for signum in SIGNALS}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
