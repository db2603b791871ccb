"""Queries to Slurm: its limits, its queue, how a job ended. None needs an accounting database."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator

from trace_bench.system.errors import TraceBenchError

#: Variables that jobs submitted from inside a job must not inherit, and exceptions.
_INHERITED, _KEPT = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_"), ("SLURM_CONF",)
_TIMEOUT_S = 60.0


class SlurmError(TraceBenchError):
    """Slurm is missing or does not answer."""


def is_here() -> bool:
    """Whether Slurm's commands exist on this machine."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def ask(*command: str) -> str:
    """The output of a Slurm command; SlurmError if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]} does not answer ({type(error).__name__}).") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise SlurmError(f"{command[0]} failed: {said}.")
    return done.stdout


def max_array_size() -> int:
    """Maximum number of jobs in an array (MaxArraySize is the largest index plus one)."""
    for line in ask("scontrol", "show", "config").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize":
            return max(1, int(value))
    return 1001  # Slurm's default


def queued(job_ids: Iterable[str]) -> dict[str, str]:
    """The jobs ("7" or "7_3") that have not ended, with their state (PENDING, RUNNING, ...)."""
    wanted = set(job_ids)
    arrays = sorted({job_id.partition("_")[0] for job_id in wanted})
    if not arrays:
        return {}
    try:
        said = ask("squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={','.join(arrays)}")
    except SlurmError as error:
        if "Invalid job id" in str(error):  # all have ended some time ago
            return {}
        raise
    states = dict(line.split(maxsplit=1) for line in said.splitlines() if line.strip())
    return {job_id: state for job_id, state in states.items() if job_id in wanted}


def how_it_ended(job_id: str) -> str:
    """A job's last state as named by Slurm, such as OUT_OF_MEMORY or TIMEOUT; empty if Slurm forgot it."""
    with contextlib.suppress(SlurmError):
        return fields_of(ask("scontrol", "show", "job", "--oneliner", job_id)).get("JobState", "")
    with contextlib.suppress(SlurmError):
        words = ask("sacct", "--noheader", "--allocations", "--format=State", f"--jobs={job_id}").split()
        return words[0] if words else ""
    return ""


def fields_of(line: str) -> dict[str, str]:
    """Key=value pairs of `scontrol --oneliner`."""
    return {key: value for key, is_pair, value in (word.partition("=") for word in line.split()) if is_pair}


def is_preempted_with_grace(job_id: str) -> bool:
    """Whether Slurm preempts the job but lets it end by itself; it must then requeue itself.

    Without a grace time, Slurm requeues the job before its processes notice. A cancelled job must not be
    requeued.
    """
    with contextlib.suppress(SlurmError):
        job = fields_of(ask("scontrol", "show", "job", "--oneliner", job_id))
        return job.get("JobState") == "RUNNING" and job.get("PreemptTime", "None") != "None"
    return False


def cancel(job_ids: Iterable[str]) -> None:
    """Cancel jobs; ignores those that have ended."""
    ids = list(job_ids)
    if ids:
        ask("scancel", "--quiet", *ids)


@contextlib.contextmanager
def outside_a_job() -> Iterator[None]:
    """Hide the Slurm variables of a surrounding job, which would affect submitted jobs."""
    hidden = {
        key: os.environ.pop(key)
        for key in list(os.environ)
        if key.startswith(_INHERITED) and key not in _KEPT
    }
    try:
        yield
    finally:
        os.environ.update(hidden)
