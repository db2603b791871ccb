"""Threads that take turns, and wait together for their calls of a network.

One thread runs at a time, so nothing global (of torch, numpy or this package) is ever used by two. A thread
that asks for a call hands its turn on. When all wait, the calls of one kind are answered together, by the
thread that came last.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
    rounds: int = 0  # how often others came first


class Seat:
    """One lane among those that take turns, and the seconds that it has used."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._turn = threading.Event()
        self._call: Call | None = None
        self._used = 0.0
        self._since: float | None = None

    def __enter__(self) -> Seat:
        self._turns.join(self)
        self._wait()
        return self

    def __exit__(self, *error: object) -> None:
        self._pause()
        self._turns.pass_on()

    def ask(self, call: Call) -> Any:
        """The result of a call; the others run meanwhile.

        Raises:
            KeyboardInterrupt: all lanes have to end at once.
        """
        self._pause()
        self._call = call
        self._turns.park(self)
        self._turns.pass_on()
        self._wait()
        self._call = None
        if call.error is not None:
            raise call.error
        return call.result

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """The others run while this lane does something that uses nothing global, such as writing files.

        It has no turn meanwhile, so the block must not ask. Of its time, the lane is charged for that in
        which nobody else had a turn.
        """
        self._pause()
        self._turns.pass_on()
        try:
            yield
        finally:
            self.charge(self._turns.join(self))
            self._wait()

    def seconds(self) -> float:
        """Seconds of its turns so far, and its share of the calls that were answered together.

        The seconds of all lanes add up to those of the process.
        """
        return self._used + (0.0 if self._since is None else time.monotonic() - self._since)

    def charge(self, seconds: float) -> None:
        """Add its share of a call."""
        self._used += seconds

    def take(self) -> None:
        """It is its turn."""
        self._turn.set()

    @property
    def call(self) -> Call:
        """What it waits for."""
        assert self._call is not None
        return self._call

    def _wait(self) -> None:
        self._turn.wait()
        self._turn.clear()
        self._since = time.monotonic()

    def _pause(self) -> None:
        if self._since is not None:
            self._used += time.monotonic() - self._since
            self._since = None


class Turns:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: deque[Seat] = deque()
        self._waiting: list[Seat] = []
        self._idle_since: float | None = time.monotonic()  # None: somebody has the turn
        self._is_over = False

    def join(self, seat: Seat) -> float:
        """Another lane, or one that was away; it gets its turn like the others. Returns for how many seconds
        nobody had a turn."""
        with self._lock:
            self._ready.append(seat)
            if self._idle_since is None:
                return 0.0
            idle = time.monotonic() - self._idle_since
            self._idle_since = None
        self.pass_on()
        return idle

    def park(self, seat: Seat) -> None:
        """The lane whose turn it is waits for its call."""
        with self._lock:
            self._waiting.append(seat)

    def pass_on(self) -> None:
        """Give the turn to the next lane that can go on; answer calls if all wait."""
        while True:
            with self._lock:
                if self._ready:
                    self._ready.popleft().take()
                    return
                if not self._waiting:
                    self._idle_since = time.monotonic()
                    return
                seats = self._chosen()
            began = time.monotonic()
            if not self._is_over:
                _answer([seat.call for seat in seats])
            self._charge(seats, time.monotonic() - began)
            with self._lock:
                self._ready.extend(seats)

    def end(self) -> None:
        """Every lane raises KeyboardInterrupt at its next call."""
        self._is_over = True

    def _chosen(self) -> list[Seat]:
        """The lanes whose calls are answered next."""
        late = [seat for seat in self._waiting if seat.call.rounds >= PATIENCE]
        rank = min(seat.call.rank for seat in late or self._waiting)
        chosen = [seat for seat in self._waiting if seat.call.rank == rank]
        self._waiting = [seat for seat in self._waiting if seat.call.rank != rank]
        for seat in self._waiting:
            seat.call.rounds += 1
        if self._is_over:
            for seat in chosen:
                seat.call.error = KeyboardInterrupt()
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
                call.error = error
