"""Signals as a wish to stop: after the current step, with a checkpoint, not in the middle of things."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

#: What asks a run to stop: the scheduler, Ctrl-C, and Slurm's warning before a time limit or a preemption.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


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
        """The first signal is noted; one more stops at once."""
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum
        name = signal.Signals(signum).name
        os.write(
            2, f"\n{name}: stopping after this step, with a checkpoint (once more to stop at once)\n".encode()
        )


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
