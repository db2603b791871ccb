"""Whose turn it is, and who pays for the time."""

from __future__ import annotations

import threading
import traceback

import pytest
import torch

from trace_bench.priors.lanes import turns
from trace_bench.priors.lanes.turns import Call, Seat, Turns


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test moves."""
    now = [0.0]
    monkeypatch.setattr(turns.time, "monotonic", lambda: now[0])
    return now


def to_the_end(together: Turns) -> None:
    while together:
        if not together.go_on():
            together.rest(1.0)


def answer(together: list[Call]) -> None:
    for call in together:
        call.result = 2 * call.units[0]


def doubled(value: float) -> Call:
    """A call whose result is twice the value."""
    return Call(answer, 0, (), [value], lambda: None, lambda outputs: None)


def test_a_run_that_is_alone_waits_for_nobody():
    seat = Seat()
    assert seat.ask(doubled(3.0)) == 6.0
    assert seat.away(threading.get_ident) == threading.get_ident()


def test_calls_of_one_kind_are_answered_together():
    together, calls, found = Turns(), [], []

    def counted(some: list[Call]) -> None:
        calls.append(len(some))
        answer(some)

    def ask(seat: Seat, rank: int) -> None:
        found.append(seat.ask(Call(counted, rank, (), [rank], lambda: None, lambda outputs: None)))

    for ranks in ([0, 1], [1], [0, 1]):  # the second waits until the others are as far
        seat = Seat(together)
        together.start(seat, lambda seat=seat, ranks=ranks: [ask(seat, rank) for rank in ranks])
    to_the_end(together)
    assert calls == [2, 3]
    assert sorted(found) == [0, 0, 2, 2, 2]


def test_an_error_of_several_lanes_has_the_frames_of_one():
    together, seen = Turns(), []

    def fails(some: list[Call]) -> None:
        raise ValueError("no memory left")

    def ask(seat: Seat) -> None:
        try:
            seat.ask(Call(fails, 0, (), [0.0], lambda: None, lambda outputs: None))
        except ValueError as error:
            seen.append([frame.name for frame in traceback.extract_tb(error.__traceback__)])

    for _ in range(2):
        seat = Seat(together)
        together.start(seat, lambda seat=seat: ask(seat))
    to_the_end(together)
    assert seen[0] == seen[1]
    assert seen[0].count("ask") == 2  # here and in Seat
    assert seen[0][-1] == "fails"


def test_a_lane_that_is_away_pays_for_what_nobody_else_uses(clock):
    together, may_end = Turns(), threading.Event()
    seat = Seat(together)

    def work() -> None:
        clock[0] += 1.0
        seat.away(lambda: may_end.wait(60))
        clock[0] += 4.0

    together.start(seat, work)
    assert together.go_on()
    assert not together.go_on()
    wait = turns.futures.wait

    def rest(*given):
        clock[0] += 2.0
        may_end.set()
        return wait(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns.futures, "wait", rest)
        together.rest(60.0)
    to_the_end(together)
    assert seat.seconds() == 7.0


def test_a_lane_that_is_away_does_not_pay_for_the_turns_of_others(clock):
    together, may_end = Turns(), threading.Event()
    one, other = Seat(together), Seat(together)

    def second() -> None:
        clock[0] += 2.0
        may_end.set()

    together.start(one, lambda: one.away(lambda: may_end.wait(60)))
    together.start(other, second)
    to_the_end(together)
    assert (one.seconds(), other.seconds()) == (0.0, 2.0)


def test_an_error_while_away_is_raised_in_the_lane():
    together, seen = Turns(), []
    seat = Seat(together)

    def fails() -> None:
        raise OSError("the disk is full")

    def work() -> None:
        with pytest.raises(OSError, match="the disk is full"):
            seat.away(fails)
        seen.append(seat.ask(doubled(1.0)))

    together.start(seat, work)
    to_the_end(together)
    assert seen == [2.0]


def test_what_torch_keeps_for_a_thread_is_each_lanes_own():
    """Gradient mode and number of threads: of a lane, of the others, and of the one that gives turns."""
    together, seen = Turns(), []
    before = torch.get_num_threads()

    def lane(seat: Seat, has_grad: bool, threads: int) -> None:
        with torch.set_grad_enabled(has_grad):
            torch.set_num_threads(threads)
            for _ in range(2):
                seat.ask(doubled(0.0))
                seen.append((torch.is_grad_enabled(), torch.get_num_threads()) == (has_grad, threads))

    for has_grad, threads in ((False, 1), (True, 2)):
        seat = Seat(together)
        together.start(seat, lambda seat=seat, g=has_grad, n=threads: lane(seat, g, n))
    while together:
        together.go_on()
        assert (torch.is_grad_enabled(), torch.get_num_threads()) == (True, before)
    assert seen == [True] * 4


def test_what_ends_a_lane_is_raised_where_it_got_its_turn():
    together, ended = Turns(), []

    def interrupted() -> None:
        raise KeyboardInterrupt

    def goes_on(seat: Seat) -> None:
        try:
            while True:
                seat.ask(doubled(0.0))
        finally:
            ended.append(seat)

    seats = [Seat(together) for _ in range(3)]
    together.start(seats[0], lambda: goes_on(seats[0]))
    together.start(seats[1], interrupted)
    together.start(seats[2], lambda: ended.append("never began"))
    with pytest.raises(KeyboardInterrupt):
        to_the_end(together)
    together.end()
    assert ended == [seats[0]]
    assert not together
