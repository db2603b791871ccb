"""Several runs in one process: each is an ordinary run in a thread; they share a prior."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue

from trace_bench.priors.lanes.turns import Turns
from trace_bench.runs.identity import RunSpec
from trace_bench.runs.lane import Lane
from trace_bench.runs.run import Outcome, make_asset


class Lanes:
    """Runs side by side. Signals arrive in the main thread, so this belongs there.

    Args:
        lanes: the most runs at a time.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._turns = Turns()
        self._threads: list[threading.Thread] = []

    def start(
        self, run: RunSpec, should_stop: Callable[[], bool], ended: Callable[[RunSpec, Outcome], None]
    ) -> None:
        """Make the asset of `run` in a new thread, which calls `ended` as its last act."""
        lane = Lane(self.lanes, self._turns)

        def work() -> None:
            outcome = Outcome("preempted", run.folder)
            try:
                with lane.seat:
                    outcome = make_asset(run, should_stop, lane)
            except KeyboardInterrupt:  # after `end`
                pass
            finally:
                ended(run, outcome)

        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=work, name=f"lane-{run.folder.name}"))
        self._threads[-1].start()

    def wait(self) -> None:
        """Until no run is left."""
        for thread in self._threads:
            thread.join()

    def end(self) -> None:
        """Make every run end at its next call of a network, and wait for it."""
        self._turns.end()
        self.wait()


def make_in_lanes(runs: Iterable[RunSpec], lanes: int, stop: Callable[[], bool]) -> Iterator[Outcome]:
    """Make runs, `lanes` at a time; the outcomes come in the order in which they end.

    After a signal, or a failure with on_error=stop, no further run starts, and the others stop after their
    current step, with a checkpoint.
    """
    todo, side = iter(runs), Lanes(lanes)
    ended: SimpleQueue[tuple[RunSpec, Outcome]] = SimpleQueue()
    working, is_over = 0, threading.Event()
    try:
        while True:
            while (
                working < lanes and not (stop() or is_over.is_set()) and (run := next(todo, None)) is not None
            ):
                side.start(run, lambda: stop() or is_over.is_set(), lambda run, how: ended.put((run, how)))
                working += 1
            if not working:
                return
            run, outcome = ended.get()
            working -= 1
            if outcome.status == "failed" and run.job.on_error == "stop":
                is_over.set()
            yield outcome
    except BaseException:
        side.end()
        raise
