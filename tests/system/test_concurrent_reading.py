"""Reading many files at a time keeps their order and their errors."""

from __future__ import annotations

import threading

import pytest

from trace_bench.system.files import concurrently


@pytest.mark.parametrize("count", [0, 1, 64, 65, 1000])
def test_results_come_in_order(count):
    assert list(concurrently(lambda item: -item, iter(range(count)))) == [-item for item in range(count)]


def test_many_items_are_read_at_the_same_time():
    both = threading.Barrier(2, timeout=20)

    def read(item):
        if item in (0, 64):  # in two parts: neither ends before the other begins
            both.wait()
        return item

    assert len(list(concurrently(read, range(128)))) == 128


def test_an_error_is_raised_in_its_turn():
    found = concurrently(lambda item: 1 // (item - 100), range(200))
    assert [next(found) for _ in range(64)] == [1 // (item - 100) for item in range(64)]
    with pytest.raises(ZeroDivisionError):
        list(found)
