"""Whose turn it is, and who pays for the time."""

from __future__ import annotations

import threading

import pytest

from trace_bench.priors.lanes import turns
from trace_bench.priors.lanes.turns import Seat, Turns


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only the test moves."""
    now = [0.0]
    monkeypatch.setattr(turns.time, "monotonic", lambda: now[0])
    return now


def test_a_lane_that_is_away_pays_for_what_nobody_else_uses(clock):
    seat = Seat(Turns())
    with seat:
        clock[0] += 1.0
        with seat.away():
            clock[0] += 2.0
        clock[0] += 4.0
    assert seat.seconds() == 7.0


def test_a_lane_that_is_away_does_not_pay_for_the_turns_of_others(clock):
    together = Turns()
    one, other = Seat(together), Seat(together)
    is_there, may_go = threading.Event(), threading.Event()

    def work():
        with other:
            is_there.set()
            may_go.wait(60)
            clock[0] += 2.0

    thread = threading.Thread(target=work)
    with one:
        thread.start()
        with one.away():
            assert is_there.wait(60)  # it has the turn
            may_go.set()
            thread.join()
            clock[0] += 8.0  # nobody has it
    assert (one.seconds(), other.seconds()) == (8.0, 2.0)


def test_an_error_while_away_takes_the_turn_again(clock):
    seat = Seat(Turns())
    with pytest.raises(OSError, match="the disk is full"), seat, seat.away():
        raise OSError("the disk is full")
    with seat:  # nobody else has it
        pass
