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


def alive_jobs(rows: Iterable[Row], sweeps: Iterable[Sweep], problems: list[str]) -> Mapping[str, str] | None:
    """The waiting and running Slurm jobs among those named; None if Slurm is not available.

    If Slurm is here but does not answer, `problems` gets a sentence that says so.
    """
    ids = {row.slurm_id for row in rows if row.status == "running" and row.slurm_id}
    ids |= {job_id for job_id, _ in jobs_of(sweeps)}
    if not ids or not slurm.is_here():
        return None
    try:
        return slurm.queued(ids)
    except slurm.SlurmError as error:
        problems.append(
            f"{str(error).rstrip('.')}: Slurm did not answer, so runs that wait in its queue are shown as "
            "missing, and the state of running ones is a guess from what they last wrote."
        )
        return None


def states(
    root: Path, rows: Mapping[str, Row], sweeps: Iterable[Sweep], problems: list[str] | None = None
) -> dict[str, State]:
    """The state of every run that has a manifest or is part of a plan; `problems` gets what hides one."""
    sweeps = list(sweeps)
    alive = alive_jobs(rows.values(), sweeps, [] if problems is None else problems)
    queued = {name for job_id, names in jobs_of(sweeps) if job_id in (alive or {}) for name in names}
    found: dict[str, State] = {}
    for name in dict.fromkeys([*(name for sweep in sweeps for name in sweep.runs), *rows]):
        state: State = "missing"
        if name in rows:
            state = given_state(root / name, rows[name].status, rows[name].slurm_id, alive)
        if state in ("missing", "killed") and name in queued:
            state = "queued"
        found[name] = state
    return found
