"""Several runs in one process: each is an ordinary run in a thread; they share a prior (`priors.lanes`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal

from trace_bench.priors.base import Prior
from trace_bench.priors.lanes.batcher import Batcher
from trace_bench.priors.lanes.lane_prior import LanePrior
from trace_bench.priors.lanes.turns import Seat, Turns
from trace_bench.runs.identity import RunSpec

if TYPE_CHECKING:
    from trace_bench.runs.run import Outcome

#: single: the networks compute what the run asks for. batched: in batches of certain sizes, alone or with
#: other runs. A run's bits are the same within a mode, for any number of lanes.
Mode = Literal["single", "batched"]


class Lane:
    """What a run needs to know of the lanes of its process.

    Args:
        lanes: how many runs share the process; with more than one, new runs are batched.
        turns: None for a run that is alone.
    """

    def __init__(self, lanes: int = 1, turns: Turns | None = None) -> None:
        self.lanes = lanes
        self.is_alone = turns is None
        self.seat = Seat(turns or Turns())
        self._batcher: Batcher | None = None

    @property
    def mode(self) -> Mode:
        """The mode of a run that begins here."""
        return "batched" if self.lanes > 1 else "single"

    @property
    def sizes(self) -> dict[str, list[int]]:
        """The sizes of the batches so far, by network; empty in the single mode."""
        return self._batcher.sizes if self._batcher else {}

    def prior(self, shared: Prior, mode: Mode) -> Prior:
        """The prior for a run of this mode."""
        if mode == "single" and self.is_alone:
            return shared
        batcher = batcher_of(shared)
        self._batcher = batcher if mode == "batched" else None
        return LanePrior(batcher, self.seat, mode == "batched")

    def clock(self) -> float:
        """Seconds that this run has used: those of the clock, if it is alone."""
        return time.monotonic() if self.is_alone else self.seat.seconds()


_batchers: dict[int, Batcher] = {}


def batcher_of(prior: Prior) -> Batcher:
    """The batcher of a prior, one for the process."""
    if id(prior) not in _batchers:
        _batchers[id(prior)] = Batcher(prior)  # keeps the prior, so its id is never another's
    return _batchers[id(prior)]


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
            from trace_bench.runs.run import Outcome, make_asset

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
