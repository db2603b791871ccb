"""The time that is left of a sweep, from the declared cost of its runs and from the runs that are done.

A run takes load + overhead + cost x pace: the overhead is its init and its renders, the cost is the work that
its method declares, and the pace is measured on finished runs: of the same kind if there are any, else of the
same representation, else of all. The waiting runs are then given to the workers in their order.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from trace_bench.run_folder.live import Live


@dataclass(frozen=True)
class Spent:
    """Seconds of a finished run."""

    load: float
    distill: float
    other: float  # init, export, renders


@dataclass(frozen=True)
class Task:
    """One run of a sweep: finished with `spent`, running with `live`, or waiting."""

    method: str
    representation: str
    cost: float  # declared; any unit, the same for all runs of a sweep
    spent: Spent | None = None
    is_running: bool = False
    live: Live | None = None


@dataclass(frozen=True)
class _Guess:
    load: float
    distill: float
    other: float


def seconds_left(tasks: Sequence[Task], workers: int) -> float | None:
    """Seconds until the last run of the sweep ends; None while nothing is known of its pace.

    Args:
        tasks: the runs, in the order in which they start; without those that failed.
        workers: runs made at the same time.
    """
    done = [task for task in tasks if task.spent is not None]
    running = [task for task in tasks if task.is_running]
    waiting = [task for task in tasks if task.spent is None and not task.is_running]
    if not running and not waiting:
        return 0.0
    free: list[float] = []
    for task in running:
        guess = _guess(task, done, running)
        if guess is None:
            return None
        free.append(_left_of(task, guess))
    free += [0.0] * max(0, workers - len(free))
    heapq.heapify(free)
    for task in waiting:
        guess = _guess(task, done, running)
        if guess is None:
            return None
        heapq.heapreplace(free, free[0] + guess.load + guess.distill + guess.other)
    return max(free)


def _guess(task: Task, done: Sequence[Task], running: Sequence[Task]) -> _Guess | None:
    """What a run will take in all."""
    same = [other for other in done if _kind(other) == _kind(task)]
    near = [other for other in done if other.representation == task.representation] or list(done)
    spent = [other.spent for other in same or near if other.spent is not None]
    if not spent:
        pace = _pace_of_running(running)
        return None if pace is None else _Guess(0.0, task.cost * pace, 0.0)
    load = min(item.load for item in spent)  # the first load of each worker takes longer
    other_s = mean(item.other for item in spent)
    if same:
        return _Guess(load, mean(item.distill for item in spent), other_s)
    cost = sum(other.cost for other in near)
    distill = sum(item.distill for item in spent)
    pace = distill / cost if cost else _pace_of_running(running) or 0.0
    return _Guess(load, task.cost * pace, other_s)


def _kind(task: Task) -> tuple[str, str, float]:
    return task.method, task.representation, task.cost


def _pace_of_running(running: Sequence[Task]) -> float | None:
    """Seconds per cost of the runs that are distilling; None if none says."""
    found = [
        (task.live.total / task.live.rate) / task.cost
        for task in running
        if task.live is not None and task.live.rate and task.live.total and task.cost
    ]
    return mean(found) if found else None


def _left_of(task: Task, guess: _Guess) -> float:
    """Seconds that a running run still needs."""
    live = task.live
    if live is None or live.phase in ("load", "init"):
        return guess.distill + guess.other
    if live.phase == "distill":
        rest = (live.total - live.done) / live.rate if live.rate else guess.distill * (1.0 - live.fraction)
        return rest + guess.other
    return guess.other * (1.0 - live.fraction)
