"""Reading many files at a time keeps their order and their errors."""

from __future__ import annotations

import itertools
import threading

import pytest

from trace_bench.system import files
from trace_bench.system.files import concurrently


@pytest.mark.parametrize("count", [0, 1, 64, 65, 1000])
def test_results_come_in_order(count):
    assert list(concurrently(lambda item: -item, iter(range(count)))) == [-item for item in range(count)]


def test_a_disk_that_answers_slowly_is_asked_for_many_items_at_the_same_time(monkeypatch):
    """The first items take a second each, of which the thread works for a hundredth."""
    clock = itertools.count()
    monkeypatch.setattr(files.time, "perf_counter", lambda: 1.0 * next(clock))
    monkeypatch.setattr(files.time, "thread_time", lambda: 0.01 * next(clock))
    both = threading.Barrier(2, timeout=20)

    def read(item):
        if item in (16, 16 + 64):  # in two parts: neither ends before the other begins
            both.wait()
        return item

    assert list(concurrently(read, range(200))) == list(range(200))


def test_a_thread_that_had_to_wait_once_goes_on_alone(monkeypatch):
    """As when another program had the core."""
    clock = itertools.cycle([0.0, 1.0, 1.0, 1.1])  # the first time is a second longer
    monkeypatch.setattr(files.time, "perf_counter", lambda: next(clock))
    worked = itertools.cycle([0.0, 0.01, 0.01, 0.11])
    monkeypatch.setattr(files.time, "thread_time", lambda: next(worked))
    threads = set(concurrently(lambda item: threading.current_thread(), range(200)))
    assert threads == {threading.current_thread()}


def test_a_disk_that_answers_at_once_is_read_by_this_thread(monkeypatch):
    clock = itertools.count()
    for name in ("perf_counter", "thread_time"):
        monkeypatch.setattr(files.time, name, lambda: 1.0 * next(clock))
    threads = set(concurrently(lambda item: threading.current_thread(), range(200)))
    assert threads == {threading.current_thread()}


def test_an_error_is_raised_in_its_turn():
    found = concurrently(lambda item: 1 // (item - 100), range(200))
    assert [next(found) for _ in range(64)] == [1 // (item - 100) for item in range(64)]
    with pytest.raises(ZeroDivisionError):
        list(found)
