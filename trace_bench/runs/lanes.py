"""Several runs in one process: each is an ordinary run in a lane; they share a prior."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from trace_bench.priors.lanes.turns import Turns
from trace_bench.runs.identity import RunSpec
from trace_bench.runs.lane import Lane
from trace_bench.runs.run import Outcome, make_asset

_MOMENT_S = 0.05


class Lanes:
    """Runs side by side. They go on only while `go_on` is called, always by the same thread.

    Args:
        lanes: the most runs at a time, besides those that only write their files.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._turns = Turns()

    def __len__(self) -> int:
        """The number of runs that are not over."""
        return len(self._turns)

    @property
    def has_room(self) -> bool:
        """Whether another run may begin. A run that only writes its files leaves its place to the next."""
        away = self._turns.away
        return len(self) - away < self.lanes and away <= self.lanes

    def start(
        self, run: RunSpec, should_stop: Callable[[], bool], ended: Callable[[RunSpec, Outcome], None]
    ) -> None:
        """Make the asset of `run` in a new lane, which calls `ended` as its last act."""
        lane = Lane(self.lanes, self._turns)

        def work() -> None:
            outcome = Outcome("preempted", run.folder)
            try:
                outcome = make_asset(run, should_stop, lane)
            finally:
                ended(run, outcome)

        self._turns.start(lane.seat, work)

    def go_on(self) -> None:
        """Let a run go on until it needs a network; if all only write files, wait for them for a moment.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C twice; `end` the others.
        """
        if not self._turns.go_on():
            self._turns.rest(_MOMENT_S)

    def end(self) -> None:
        """End every run at once."""
        self._turns.end()


def make_in_lanes(runs: Iterable[RunSpec], lanes: int, stop: Callable[[], bool]) -> Iterator[Outcome]:
    """Make runs, `lanes` at a time; the outcomes come in the order in which they end.

    After a signal, or a failure with on_error=stop, no further run starts, and the others stop after their
    current step, with a checkpoint.
    """
    todo, side = iter(runs), Lanes(lanes)
    over: list[tuple[RunSpec, Outcome]] = []
    has_failed = False

    def should_stop() -> bool:
        return has_failed or stop()

    try:
        while True:
            while side.has_room and not should_stop() and (run := next(todo, None)) is not None:
                side.start(run, should_stop, lambda run, how: over.append((run, how)))
            if not side:
                return
            side.go_on()
            while over:
                run, outcome = over.pop()
                has_failed |= outcome.status == "failed" and run.job.on_error == "stop"
                yield outcome
    except BaseException:
        side.end()
        raise
