"""The state of a run: one function and one vocabulary for status, tables and everything that counts runs."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from trace_bench.run_folder.manifest import MANIFEST, Manifest
from trace_bench.system.typed import Count, FormatError, read_typed

#: `killed`: the manifest says running, but no process is working on it. `queued`: a Slurm job contains it.
#: `unknown`: a Slurm job contains it, but Slurm does not answer.
State = Literal[
    "done", "running", "preempted", "queued", "killed", "failed", "missing", "unreadable", "unknown"
]
STATES: tuple[State, ...] = (
    "done", "running", "queued", "preempted", "killed", "failed", "unreadable", "unknown", "missing",
)  # fmt: skip
CLAIM = ".claim"
SILENT_S = 900.0  # a run on another machine counts as killed if it has written nothing for this long


@dataclass(frozen=True)
class Holder:
    """The content of a claim: the process that works on the run."""

    pid: Count
    host: str


@cache
def holders() -> TypeAdapter[Holder]:
    """Parses a claim."""
    return TypeAdapter(Holder)


def state_of(folder: Path, manifest: Manifest, alive: Mapping[str, str] | None = None) -> State:
    """The state of a run with a manifest; `alive` are the waiting and running Slurm jobs, None if unknown."""
    return given_state(folder, manifest.status, slurm_id(manifest), alive)


def given_state(folder: Path, status: str, job: str, alive: Mapping[str, str] | None) -> State:
    """`state_of` for what is known of a manifest: its status and Slurm job."""
    if status == "running" and not is_worked_on(folder, job, alive):
        return "killed"
    return status  # type: ignore[return-value]


def slurm_id(manifest: Manifest) -> str:
    """Slurm's id of the last attempt: "7" or "7_3"; empty outside Slurm."""
    job = manifest.environment.get("slurm") or {}
    if job.get("array_job_id"):
        return f"{job['array_job_id']}_{job.get('array_task_id')}"
    return str(job.get("job_id") or "")


def is_worked_on(folder: Path, job: str, alive: Mapping[str, str] | None) -> bool:
    """Whether a process is working on a run marked as running; does not try the lock, its owner needs it."""
    if job and alive is not None:
        return alive.get(job) in ("RUNNING", "COMPLETING")
    try:
        holder = read_typed(holders(), folder / CLAIM, "it only names who works on the run")
        if holder.host == socket.gethostname():
            return Path(f"/proc/{holder.pid}").exists()
    except FormatError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
    return time.time() - last_sign(folder) < SILENT_S


def holder_of(folder: Path) -> Holder | None:
    """The process that holds the claim on a run; None if that is not known."""
    try:
        return read_typed(holders(), folder / CLAIM, "it only names who works on the run")
    except FormatError:
        return None


def last_sign(folder: Path) -> float:
    """Time of a run's last write, in seconds since 1970."""
    times = [0.0]
    for name in ("metrics.jsonl", "log.txt", MANIFEST):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times)
