"""The state of every run under an output root, from the run index, the sweeps' plans and Slurm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from trace_bench.run_folder.index import Index, failure
from trace_bench.run_folder.reading import Run
from trace_bench.run_folder.states import State, given_state, slurm_id
from trace_bench.sweeps.slurm import commands as slurm
from trace_bench.sweeps.sweep_plan import Sweep, jobs_of

#: What a Slurm job that contains the run makes or continues.
_AGAIN: tuple[State, ...] = ("missing", "killed", "preempted")


@dataclass(frozen=True)
class Row:
    """The status of one run; times in seconds since 1970."""

    status: str  # the manifest's, or "unreadable", or "missing"
    method: str = ""
    representation: str = ""
    prompt: str = ""
    seconds: float = 0.0  # time spent, over all attempts
    started: float = 0.0
    finished: float = 0.0
    slurm_id: str = ""  # of the last attempt
    reason: str = ""  # of a failure


def rows_of(index: Index) -> dict[str, Row]:
    """Every run folder with a manifest, relative to the output root."""
    rows = {name: _row(run) for name, run in index.runs.items()}
    return rows | {name: Row("unreadable", reason=why) for name, why in index.unreadable.items()}


def _row(run: Run) -> Row:
    manifest = run.manifest
    return Row(
        status=manifest.status,
        method=manifest.run.method,
        representation=manifest.run.representation,
        prompt=manifest.run.prompt,
        seconds=float(manifest.seconds.get("total") or 0.0),
        started=seconds_of(manifest.started),
        finished=seconds_of(manifest.finished),
        slurm_id=slurm_id(manifest),
        reason=failure(run.folder) if manifest.status == "failed" else "",
    )


def seconds_of(stamp: str | None) -> float:
    """A manifest's time as seconds since 1970; 0 if there is none."""
    try:
        return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
    except (ValueError, OverflowError):
        return 0.0


@dataclass(frozen=True)
class Queue:
    """What Slurm says about the jobs of an output root."""

    alive: Mapping[str, str] | None  # job id -> PENDING, RUNNING, ...; None if Slurm is not on this machine
    silence: str = ""  # why Slurm did not answer, if it should have


def ask_slurm(rows: Iterable[Row], sweeps: Iterable[Sweep]) -> Queue:
    """The waiting and running Slurm jobs among those that manifests and sweeps name."""
    ids = {row.slurm_id for row in rows if row.status == "running" and row.slurm_id}
    ids |= {job_id for job_id, _ in jobs_of(sweeps)}
    if not ids or not slurm.is_here():
        return Queue(None)
    try:
        return Queue(slurm.queued(ids))
    except slurm.SlurmError as error:
        return Queue(None, str(error))


def states(root: Path, rows: Mapping[str, Row], sweeps: Iterable[Sweep], queue: Queue) -> dict[str, State]:
    """The state of every run that has a manifest or is part of a plan."""
    sweeps = list(sweeps)
    in_jobs: set[str] = set()
    if queue.silence:
        in_jobs = {name for _, names in jobs_of(sweeps) for name in names}
        in_jobs |= {name for name, row in rows.items() if row.slurm_id}
    queued = {name for job_id, names in jobs_of(sweeps) if job_id in (queue.alive or {}) for name in names}
    found: dict[str, State] = {}
    for name in dict.fromkeys([*(name for sweep in sweeps for name in sweep.runs), *rows]):
        state: State = "missing"
        if name in rows:
            state = given_state(root / name, rows[name].status, rows[name].slurm_id, queue.alive)
        if state in _AGAIN and name in queued:
            state = "queued"
        elif state in _AGAIN and name in in_jobs:
            state = "unknown"
        found[name] = state
    return found
