"""The state of every run under an output root, from the run index, the sweeps' plans and Slurm."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from trace_bench.run_folder.index import failure, read_index
from trace_bench.run_folder.manifest import MANIFEST, Manifest
from trace_bench.run_folder.reading import Run
from trace_bench.runs.claim import CLAIM
from trace_bench.sweeps.slurm import commands as slurm
from trace_bench.sweeps.sweep_plan import Sweep, jobs_of

#: `killed`: the manifest says running, but no process is working on it. `queued`: a Slurm job contains it.
#: `unknown`: a Slurm job contains it, but Slurm does not answer.
State = Literal[
    "done", "running", "preempted", "queued", "killed", "failed", "missing", "unreadable", "unknown"
]
STATES: tuple[State, ...] = (
    "done", "running", "queued", "preempted", "killed", "failed", "unreadable", "unknown", "missing",
)  # fmt: skip
SILENT_S = 900.0  # a run on another machine counts as killed if it has written nothing for this long


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


def read_rows(root: Path) -> dict[str, Row]:
    """Every run folder with a manifest, relative to the output root."""
    index = read_index(root)
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
        slurm_id=_slurm_id(manifest),
        reason=failure(run.folder) if manifest.status == "failed" else "",
    )


def seconds_of(stamp: str | None) -> float:
    """A manifest's time as seconds since 1970; 0 if there is none."""
    try:
        return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
    except ValueError:
        return 0.0


def _slurm_id(manifest: Manifest) -> str:
    job = manifest.environment.get("slurm") or {}
    if job.get("array_job_id"):
        return f"{job['array_job_id']}_{job.get('array_task_id')}"
    return str(job.get("job_id") or "")


@dataclass(frozen=True)
class Queue:
    """What Slurm says about the jobs of an output root."""

    alive: Mapping[str, str] | None  # job id -> PENDING, RUNNING, ...; None if Slurm is not on this machine
    silence: str = ""  # why Slurm did not answer, if it should have


def ask_slurm(rows: Iterable[Row], sweeps: Iterable[Sweep]) -> Queue:
    """The waiting and running Slurm jobs among those that manifests and sweeps name."""
    ids = {row.slurm_id for row in rows if row.status == "running" and row.slurm_id}
    ids |= {job_id for job_id, _ in jobs_of(sweeps)}
    if not slurm.is_here():
        return Queue(None)
    try:
        return Queue(slurm.queued(ids))
    except slurm.SlurmError as error:
        return Queue(None, str(error))


def states(root: Path, rows: Mapping[str, Row], sweeps: Iterable[Sweep], queue: Queue) -> dict[str, State]:
    """The state of every run that has a manifest or is part of a plan."""
    sweeps, alive = list(sweeps), queue.alive
    in_jobs: set[str] = set()
    if queue.silence:
        in_jobs = {name for _, names in jobs_of(sweeps) for name in names}
        in_jobs |= {name for name, row in rows.items() if row.slurm_id}
    queued = {name for job_id, names in jobs_of(sweeps) if job_id in (alive or {}) for name in names}
    found: dict[str, State] = {}
    for name in dict.fromkeys([*(name for sweep in sweeps for name in sweep.runs), *rows]):
        status = rows[name].status if name in rows else "missing"
        if status == "running" and not is_worked_on(root / name, rows[name], alive):
            status = "killed"
        if status in ("missing", "killed") and name in queued:
            status = "queued"
        elif status in ("missing", "killed") and name in in_jobs:
            status = "unknown"
        found[name] = status  # type: ignore[assignment]
    return found


def is_worked_on(folder: Path, row: Row, alive: Mapping[str, str] | None) -> bool:
    """Whether a process is working on a run marked as running; does not try the lock, its owner needs it."""
    if row.slurm_id and alive is not None:
        return alive.get(row.slurm_id) in ("RUNNING", "COMPLETING")
    try:
        holder = json.loads((folder / CLAIM).read_text())
        if holder["host"] == socket.gethostname():
            return Path(f"/proc/{int(holder['pid'])}").exists()
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return time.time() - last_sign(folder) < SILENT_S


def last_sign(folder: Path) -> float:
    """Time of a run's last write, in seconds since 1970."""
    times = [0.0]
    for name in ("metrics.jsonl", "log.txt", MANIFEST):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times)
