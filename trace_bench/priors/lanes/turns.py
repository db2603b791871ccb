"""Lanes that take turns in one thread, and wait together for their calls of a network.

Each lane is a greenlet. It hands its turn on where it asks for a call and nowhere else, so nothing global (of
torch, numpy or this package) is ever used by two. When all wait, the calls of one kind are answered together.
Threads would do as well, but each hand-over would wake one, and on a busy machine that waits for a core.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import torch
from greenlet import getcurrent, greenlet

T = TypeVar("T")

#: After so many rounds a call goes before all others. No method makes as many calls of one kind in a step.
PATIENCE = 64


@dataclass(eq=False)
class Call:
    """A call of a network by one lane.

    rank: the place of its kind in a step. Of all waiting calls, those of the lowest rank come first, so that
        lanes that have fallen behind catch up and are together again.
    answer: fills in result or error of calls of one rank.
    units: what is evaluated, such as the rows of a batch. A unit's result does not depend on the others.
    """

    answer: Callable[[list[Call]], None]
    rank: int
    key: tuple[Any, ...]  # calls with equal keys can be merged
    units: Sequence[Any]
    alone: Callable[[], Any]  # the result without merging
    assemble: Callable[[list[Any]], Any]  # the result from those of the units
    result: Any = None
    error: BaseException | None = None
    trace: TracebackType | None = None
    rounds: int = 0  # how often others came first

    def fail(self, error: BaseException) -> None:
        """Have the error raised in the lane that asked; several calls may share it."""
        self.error, self.trace = error, error.__traceback__


class Seat:
    """The place of one run: alone, or in a lane among those that take turns.

    Args:
        turns: None for a run that is alone: nobody waits for anybody.
    """

    def __init__(self, turns: Turns | None = None) -> None:
        self._turns = turns
        self._used = 0.0  # seconds
        self._since: float | None = None  # None: others have their turn
        self._call: Call | None = None
        self._lane: greenlet | None = None

    def ask(self, call: Call) -> Any:
        """The result of a call; the others go on meanwhile."""
        if self._turns is None:
            _answer([call])
        else:
            self._call = call
            self._turns.wait_for_call(self)
        if call.error is not None:
            raise call.error.with_traceback(call.trace)  # without the frames of lanes that share it
        return call.result

    def away(self, work: Callable[[], T]) -> T:
        """The result of `work`, which another thread does while the other lanes go on.

        `work` must use nothing global and ask for nothing, such as when it writes files. The lane is charged
        for the time in which nobody else had a turn.
        """
        return work() if self._turns is None else self._turns.wait_for_work(self, work)

    def seconds(self) -> float:
        """Seconds of its turns so far, and its share of the calls that were answered together.

        The seconds of all lanes add up to those of the process.
        """
        return self._used + (0.0 if self._since is None else time.monotonic() - self._since)

    def charge(self, seconds: float) -> None:
        """Add its share of a call."""
        self._used += seconds

    def begin(self, work: Callable[[], None]) -> None:
        """Make the lane, which does `work`. The caller's greenlet is the one that gives it its turns."""

        def lane() -> None:
            self._since = time.monotonic()
            try:
                work()
            finally:
                self._pause()

        self._lane = greenlet(lane)

    def go_on(self) -> None:
        """Give the lane its turn, until it waits or ends; raises what ends it."""
        assert self._lane is not None
        before = _state_of_thread()
        try:
            self._lane.switch()
        finally:
            _restore(before)

    def hand_over(self) -> None:
        """Called in the lane: wait for the next turn."""
        own = _state_of_thread()
        self._pause()
        parent = getcurrent().parent
        assert parent is not None
        parent.switch()
        self._since = time.monotonic()
        _restore(own)

    def end(self) -> None:
        """Raise KeyboardInterrupt in the lane."""
        while self._lane is not None and not self._lane.dead:
            with contextlib.suppress(KeyboardInterrupt):
                self._lane.throw(KeyboardInterrupt())

    @property
    def call(self) -> Call:
        """What it waits for."""
        assert self._call is not None
        return self._call

    def _pause(self) -> None:
        if self._since is not None:
            self._used += time.monotonic() - self._since
            self._since = None


class Turns:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._ready: deque[Seat] = deque()
        self._waiting: list[Seat] = []
        self._away: dict[futures.Future[Any], Seat] = {}
        self._threads: futures.ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        """The number of lanes, but for the one whose turn it is."""
        return len(self._ready) + len(self._waiting) + len(self._away)

    @property
    def away(self) -> int:
        """The number of lanes that wait for a thread."""
        return len(self._away)

    def start(self, seat: Seat, work: Callable[[], None]) -> None:
        """Another lane, which does `work` in its turns."""
        seat.begin(work)
        self._ready.append(seat)

    def go_on(self) -> bool:
        """Let the next lane go on until it waits or ends; before that, answer calls if all wait.

        What ends a lane is raised here. Returns: False if no lane can go on.
        """
        for work in [work for work in self._away if work.done()]:
            self._ready.append(self._away.pop(work))
        if not self._ready:
            if not self._waiting:
                return False
            seats = self._chosen()
            began = time.monotonic()
            _answer([seat.call for seat in seats])
            self._charge(seats, time.monotonic() - began)
            self._ready.extend(seats)
        self._ready.popleft().go_on()
        return True

    def rest(self, seconds: float) -> None:
        """Wait until a lane is back, but not longer."""
        began = time.monotonic()
        futures.wait(self._away, seconds, futures.FIRST_COMPLETED)
        idle = time.monotonic() - began
        for seat in self._away.values():
            seat.charge(idle / len(self._away))

    def wait_for_call(self, seat: Seat) -> None:
        """The lane whose turn it is waits for its call."""
        self._waiting.append(seat)
        seat.hand_over()

    def wait_for_work(self, seat: Seat, work: Callable[[], T]) -> T:
        """The lane whose turn it is waits for a thread that does `work`."""
        if self._threads is None:
            self._threads = futures.ThreadPoolExecutor(thread_name_prefix="lane-writes")
        done = self._threads.submit(contextvars.copy_context().run, work)
        self._away[done] = seat
        seat.hand_over()
        return done.result()

    def end(self) -> None:
        """Raise KeyboardInterrupt in every lane, after what threads still do for it."""
        futures.wait(self._away)
        seats = [*self._ready, *self._waiting, *self._away.values()]
        self._ready.clear()
        self._waiting.clear()
        self._away.clear()
        for seat in seats:
            seat.end()

    def _chosen(self) -> list[Seat]:
        """The lanes whose calls are answered next."""
        late = [seat for seat in self._waiting if seat.call.rounds >= PATIENCE]
        rank = min(seat.call.rank for seat in late or self._waiting)
        chosen = [seat for seat in self._waiting if seat.call.rank == rank]
        self._waiting = [seat for seat in self._waiting if seat.call.rank != rank]
        for seat in self._waiting:
            seat.call.rounds += 1
        return chosen

    @staticmethod
    def _charge(seats: Sequence[Seat], seconds: float) -> None:
        units = sum(len(seat.call.units) for seat in seats)
        for seat in seats:
            seat.charge(seconds * len(seat.call.units) / units)


def _answer(calls: Sequence[Call]) -> None:
    """Have calls of one rank answered; what is raised is raised in the lanes that asked."""
    asked: dict[Callable[[list[Call]], None], list[Call]] = {}
    for call in calls:
        asked.setdefault(call.answer, []).append(call)
    for answer, some in asked.items():
        try:
            answer(some)
        except BaseException as error:  # noqa: BLE001
            for call in some:
                call.fail(error)


def _state_of_thread() -> tuple[bool, int]:
    """What torch keeps for a thread, and each lane has for itself."""
    return torch.is_grad_enabled(), torch.get_num_threads()


def _restore(state: tuple[bool, int]) -> None:
    has_grad, threads = state
    torch.set_grad_enabled(has_grad)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
