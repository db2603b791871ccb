"""The time that is left of a sweep, from the declared cost of its runs and from the runs that are done.

A run takes load + overhead + cost x pace: the overhead is its init and its renders, the cost is the work that
its method declares, and the pace is measured: on finished runs of the same kind, else on those that run, else
on finished runs of the same representation, else of all. In lanes, runs that have just begun count little.
The waiting runs are then given to the workers in their order. A worker with several lanes divides its time
evenly between its runs.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from trace_bench.run_folder.live import Live

#: Init and renders, as a part of the steps' time, until a run is done.
_OTHER_GUESSED = 0.1


@dataclass(frozen=True)
class Spent:
    """Seconds of a finished run; in a lane, its share of its worker's time."""

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
    worker: Hashable = None  # the process that makes it, if that is known


def seconds_left(tasks: Sequence[Task], workers: int, lanes: int = 1) -> float | None:
    """Seconds until the last run of the sweep ends; None while nothing is known of its pace.

    Args:
        tasks: the runs, in the order in which they start; without those that failed.
        workers: processes that make runs.
        lanes: runs that each of them makes at the same time.
    """
    done = [task for task in tasks if task.spent is not None]
    running = [task for task in tasks if task.is_running]
    waiting = [task for task in tasks if task.spent is None and not task.is_running]
    if not running and not waiting:
        return 0.0
    guesses = _Guesses(done, running, workers, lanes)
    left: list[float] = []
    for task in [*running, *waiting]:
        guess = guesses.of(task)
        if guess is None:
            return None
        left.append(guesses.left_of(task, guess) if task.is_running else sum(vars(guess).values()))
    staff = _staff(zip(running, left, strict=False), workers)
    return _makespan(staff, left[len(running) :], lanes)


class _Guesses:
    """What runs take, from those that are done and those that run."""

    def __init__(self, done: Sequence[Task], running: Sequence[Task], workers: int, lanes: int) -> None:
        self._done, self._lanes = done, lanes
        self._known: dict[tuple[str, str, float], Spent | None] = {}
        self._at_work = [task for task in running if _steps_per_s(task)]
        # Runs side by side go on in step, so only their sum tells; those that load now had their part in it.
        crowd = sum(_cost_per_s(task) for task in self._at_work) * len(running) / max(len(self._at_work), 1)
        known = {task.worker for task in running}
        busy = min(workers, len(running)) if None in known else len(known)
        self._work_of_running = sum(task.cost * task.live.distilled for task in self._at_work if task.live)
        #: Seconds of a worker per cost.
        self._pace_of_all = busy / crowd if crowd else None

    def of(self, task: Task) -> Spent | None:
        """What a run takes in all; None if nothing is known."""
        kind = _kind(task)
        if kind not in self._known:
            self._known[kind] = self._guess(task)
        return self._known[kind]

    def _guess(self, task: Task) -> Spent | None:
        same = [other.spent for other in self._done if other.spent and _kind(other) == _kind(task)]
        near = [other for other in self._done if other.representation == task.representation] or self._done
        spent = same or [other.spent for other in near if other.spent]
        if same:
            distill: float | None = mean(item.distill for item in same)
        else:
            cost = sum(other.cost for other in near)
            of_done = sum(item.distill for item in spent) / cost if cost else 0.0
            distill = self._of_those_at_work(task)
            if distill is None and spent:
                distill = task.cost * of_done
            elif distill is not None and of_done and self._lanes > 1:
                # Runs that have just begun tell little: their rates are those of a moment.
                share = self._work_of_running / (self._work_of_running + cost)
                distill = share * distill + (1.0 - share) * task.cost * of_done
        if distill is None:
            return None
        if not spent:
            return Spent(0.0, distill, _OTHER_GUESSED * distill)
        load = min(item.load for item in spent)  # the first load of each worker takes longer
        return Spent(load, distill, mean(item.other for item in spent))

    def _of_those_at_work(self, task: Task) -> float | None:
        """Seconds of its steps at the pace of running runs; None if that is not known."""
        if self._lanes > 1:
            return None if self._pace_of_all is None else task.cost * self._pace_of_all
        near = [other for other in self._at_work if _kind(other) == _kind(task)]
        if not near and not self._done:
            near = self._at_work
        paces = [1.0 / _cost_per_s(other) for other in near if other.cost]
        return task.cost * mean(paces) if paces else None

    def left_of(self, task: Task, guess: Spent) -> float:
        """Seconds that a running run still needs."""
        live = task.live
        if live is None:
            return guess.distill + guess.other
        if live.phase in ("export", "render"):
            return guess.other * (1.0 - live.fraction)
        rest = guess.distill * (1.0 - live.distilled)
        if live.phase == "distill" and live.rate and self._lanes == 1:
            rest = (live.total - live.done) / live.rate
        return rest + guess.other


def _staff(running: Iterable[tuple[Task, float]], workers: int) -> list[list[float]]:
    """The seconds that each worker's runs still need; runs of unknown workers are spread evenly."""
    known: dict[Hashable, list[float]] = {}
    unknown = []
    for task, left in running:
        if task.worker is None:
            unknown.append(left)
        else:
            known.setdefault(task.worker, []).append(left)
    staff = [*known.values(), *([] for _ in range(workers - len(known)))]
    for left in unknown:
        min(staff, key=len).append(left)
    return staff


def _makespan(staff: list[list[float]], waiting: Sequence[float], lanes: int) -> float:
    """When the last run ends; a worker that ends one takes the next that waits."""
    todo = deque(waiting)
    while todo and len(idle := min(staff, key=len)) < lanes:
        idle.append(todo.popleft())
    events = [(min(runs) * len(runs), i) for i, runs in enumerate(staff) if runs]  # the next run that ends
    heapq.heapify(events)
    now = 0.0
    while events:
        now, i = heapq.heappop(events)
        first = min(staff[i])
        staff[i] = [left - first for left in staff[i] if left > first]
        while todo and len(staff[i]) < lanes:
            staff[i].append(todo.popleft())
        if staff[i]:
            heapq.heappush(events, (now + min(staff[i]) * len(staff[i]), i))
    return now


def _kind(task: Task) -> tuple[str, str, float]:
    return task.method, task.representation, task.cost


def _steps_per_s(task: Task) -> float:
    """Of a run that distils; 0 if it does not say."""
    live = task.live
    return live.rate if live is not None and live.phase == "distill" and live.total and live.rate else 0.0


def _cost_per_s(task: Task) -> float:
    return task.cost * _steps_per_s(task) / task.live.total if task.live and task.live.total else 0.0
