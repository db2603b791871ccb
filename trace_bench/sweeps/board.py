"""What the display of a sweep shows: how many runs are done, how long the rest takes, who is at work."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TypeVar

from trace_bench.run_folder.live import Live, read_live
from trace_bench.run_folder.manifest import Manifest, ManifestError, read_manifest
from trace_bench.run_folder.reading import Run
from trace_bench.run_folder.states import holder_of
from trace_bench.sweeps.eta import Spent, Task, seconds_left

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class AtWork:
    """A running asset."""

    method: str
    prompt: str
    live: Live | None  # None: it has not said anything yet


@dataclass(frozen=True)
class View:
    """One look at a sweep."""

    total: int
    done: int = 0
    failed: int = 0
    fraction: float = 0.0  # of the declared cost of all runs
    left_s: float | None = None  # seconds; None if unknown
    at_work: Sequence[AtWork] = ()


@dataclass(frozen=True)
class Planned:
    """A run of a sweep, known before it starts."""

    method: str
    representation: str
    prompt: str
    cost: float  # declared, in any unit


@dataclass
class Board:
    """The runs of a sweep that this process makes; `started` and `ended` keep it up to date.

    Args:
        runs: the folders of the runs, in the order in which they start.
        workers: processes that make runs.
        lanes: runs that each of them makes at the same time.
    """

    runs: Mapping[Path, Planned]
    workers: int
    lanes: int = 1
    _spent: dict[Path, Spent] = field(default_factory=dict)
    _failed: set[Path] = field(default_factory=set)
    _open: set[Path] = field(default_factory=set)  # interrupted, or another process is at work on them
    _running: dict[Path, float] = field(default_factory=dict)

    def started(self, folder: Path) -> None:
        """A run starts."""
        self._running[folder] = time.monotonic()

    def ended(self, folder: Path, status: str) -> float:
        """A run has ended with the status of its outcome; returns its seconds."""
        began = self._running.pop(folder, time.monotonic())
        if status in ("done", "skipped"):
            self._spent[folder] = spent_in(folder) or Spent(0.0, (time.monotonic() - began) / self.lanes, 0.0)
        elif status == "failed":
            self._failed.add(folder)
        else:
            self._open.add(folder)
        return time.monotonic() - began

    def view(self) -> View:
        """The sweep now."""
        running = list(self._running)
        lives = {folder: read_live(folder) for folder in running}
        gone = self._failed | self._open
        tasks = {
            folder: Task(
                plan.method,
                plan.representation,
                plan.cost,
                self._spent.get(folder),
                folder in lives,
                lives.get(folder),
                holder_of(folder) if folder in lives else None,
            )
            for folder, plan in self.runs.items()
            if folder not in gone
        }
        at_work = [AtWork(self.runs[f].method, self.runs[f].prompt, lives[f]) for f in running]
        costs = {folder: plan.cost for folder, plan in self.runs.items()}
        fraction = fraction_done(costs, {*self._spent, *self._failed}, lives)
        left = seconds_left(list(tasks.values()), self.workers, self.lanes)
        return View(len(self.runs), len(self._spent), len(self._failed), fraction, left, at_work)


def fraction_done(costs: Mapping[K, float], ended: Iterable[K], running: Mapping[K, Live | None]) -> float:
    """The part of the declared cost that is done; each run counts the same if none has a cost."""
    if not any(costs.values()):
        costs = dict.fromkeys(costs, 1.0)
    done = sum(costs[run] for run in ended if run in costs)
    done += sum(costs.get(run, 0.0) * live.distilled for run, live in running.items() if live is not None)
    return min(done / max(sum(costs.values()), 1e-30), 1.0)


def spent_in(folder: Path) -> Spent | None:
    """What a finished run took; None if its manifest does not say."""
    try:
        manifest = read_manifest(folder)
    except (ManifestError, OSError):
        return None
    return None if manifest is None else spent(manifest)


def spent(manifest: Manifest) -> Spent:
    """How long a finished run took; an init made elsewhere counts for the manifest, not here."""
    seconds = manifest.seconds
    load, distill = seconds.get("load", 0.0), seconds.get("distill", 0.0)
    elsewhere = manifest.init.get("seconds_elsewhere") or 0.0
    other = seconds.get("total", 0.0) - load - distill - elsewhere
    return Spent(load, distill, max(other, 0.0))


def view_of_folders(
    root: Path,
    states: Mapping[str, str],
    manifests: Mapping[str, Run],
    costs: Mapping[str, float],
) -> View:
    """A sweep that other processes make, from its run folders.

    Args:
        states: folder relative to `root` -> state of the run.
        manifests: the runs that have a manifest.
        costs: the declared cost of each run; empty if unknown.
    """
    costs = {name: costs.get(name, 0.0) for name in states}
    lives = {name: read_live(root / name) for name, state in states.items() if state == "running"}
    tasks = []
    for name, state in states.items():
        if state in ("failed", "unreadable"):
            continue
        _, method, representation, *_ = name.split("/")
        took = spent(manifests[name].manifest) if state == "done" and name in manifests else None
        running = name in lives
        worker = (holder_of(root / name) or name) if running else None
        tasks.append(Task(method, representation, costs[name], took, running, lives.get(name), worker))
    at_work = [
        AtWork(name.split("/")[1], manifests[name].prompt if name in manifests else name, live)
        for name, live in lives.items()
    ]
    ended = [name for name, state in states.items() if state in ("done", "failed")]
    workers = max(len({task.worker for task in tasks if task.is_running}), 1)
    lanes = ceil(len(lives) / workers)
    return View(
        len(states),
        sum(state == "done" for state in states.values()),
        sum(state in ("failed", "unreadable") for state in states.values()),
        fraction_done(costs, ended, lives),
        seconds_left(tasks, workers, lanes) if lives else None,
        at_work,
    )
