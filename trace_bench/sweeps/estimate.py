"""dry_run=true: the runs of a command, with the time and the disk that they will take.

The time is the mean of finished runs of the same kind under the output root. Without one, it is computed from
the work that the method declares; this counts the networks only, not the init, rendering or loading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trace_bench.run_folder.index import read_index
from trace_bench.runs.identity import RunSpec
from trace_bench.sweeps.budget import tflop_of_job
from trace_bench.sweeps.local import workers_of
from trace_bench.sweeps.preflight import bytes_of, free_bytes, size
from trace_bench.sweeps.resolvers import uses_gpu
from trace_bench.sweeps.slurm.submission import is_slurm, name_of, pack
from trace_bench.system.tracked import duration

#: TFLOP per second of an A100 at 40 % of its peak, as in docs/cluster.md.
A100 = 0.4 * 312
#: The same for one CPU core on the tiny prior, rendering included: 0.23 minutes for a toy run of SDS.
CORE = 0.011
_WORTH_SAYING_S = 36.0  # 0.01 hours


@dataclass(frozen=True)
class Guess:
    """What one run will take."""

    seconds: float | None  # on the machine of the command; None if unknown
    is_measured: bool  # from finished runs, else computed
    gpu_seconds: float | None  # on an A100, networks only


def estimate(plan: Sequence[RunSpec], missing: Sequence[RunSpec], launcher: Mapping[str, Any]) -> str:
    """The report of dry_run=true.

    Args:
        plan: all runs of the command.
        missing: those that it would make.
        launcher: settings of the launcher; {} for a single run.
    """
    root = plan[0].job.root
    left = {run.folder for run in missing}
    measured = _measured(plan)
    guesses = {run.folder: _guess(run, measured, is_slurm(launcher)) for run in missing}
    lines = [f"{'Run':<9} {'time':>9}  folder, under {root}"]
    for run in plan:
        guess = guesses.get(run.folder)
        state = "to make" if run.folder in left else "done"
        lines.append(f"{state:<9} {_time(guess.seconds if guess else None):>9}  {name_of(run)}")
    lines += [
        "",
        *_totals(plan, missing, list(guesses.values()), launcher),
        "dry_run=true: nothing was started.",
    ]
    return "\n".join(lines)


def _totals(
    plan: Sequence[RunSpec], missing: Sequence[RunSpec], guesses: Sequence[Guess], launcher: Mapping[str, Any]
) -> list[str]:
    """The lines under the list: how many runs, how long, how much disk, how many GPU hours."""
    lines = [f"{len(missing)} of {len(plan)} runs to make; {len(plan) - len(missing)} are done."]
    if not missing:
        return lines
    at_once, what = _at_once(missing, launcher)
    known = [guess.seconds for guess in guesses if guess.seconds is not None]
    if len(known) == len(guesses):
        source = "measured" if all(guess.is_measured for guess in guesses) else "estimated"
        lines.append(f"Time: about {duration(sum(known) / at_once)} with {at_once} {what} ({source}).")
    else:
        lines.append("Time: unknown, because the work of this prior cannot be computed in advance.")
    root = missing[0].job.root
    needed = sum(bytes_of(run.job) for run in missing)
    lines.append(f"Disk: about {size(needed)}; {size(free_bytes(root))} are free.")
    gpu = [guess.gpu_seconds for guess in guesses if guess.gpu_seconds is not None]
    if len(gpu) == len(guesses) and sum(gpu) > _WORTH_SAYING_S:
        lines.append(f"GPU: about {sum(gpu) / 3600:.2g} A100 hours for the networks; plan for twice as much.")
    return lines


def _at_once(missing: Sequence[RunSpec], launcher: Mapping[str, Any]) -> tuple[int, str]:
    """How many runs are made at the same time, and by what."""
    if is_slurm(launcher):
        jobs = min(len(pack(missing)), max(1, int(launcher["array_parallelism"])))
        return jobs, "job" if jobs == 1 else "jobs at a time"
    workers = min(len(missing), max(1, workers_of(launcher))) if launcher else 1
    return workers, "process" if workers == 1 else "processes"


def _guess(run: RunSpec, measured: Mapping[tuple[Any, ...], float], on_slurm: bool) -> Guess:
    tflop = tflop_of_job(run.job)
    gpu_seconds = None if tflop is None else tflop / A100
    if (seconds := measured.get(_kind(run))) is not None:
        return Guess(seconds, True, gpu_seconds)
    if tflop is None or on_slurm or uses_gpu(run.job.device):
        return Guess(gpu_seconds, False, gpu_seconds)
    return Guess(tflop / CORE, False, gpu_seconds)


def _measured(plan: Sequence[RunSpec]) -> dict[tuple[Any, ...], float]:
    """Mean seconds of the finished runs under the output root, by their kind."""
    root = plan[0].job.root
    found: dict[tuple[Any, ...], list[float]] = {}
    for run in read_index(root).runs.values() if root.is_dir() else ():
        seconds = run.manifest.seconds.get("total")
        if run.manifest.status == "done" and isinstance(seconds, (int, float)):
            i = run.identity
            key = (i.method, i.representation, i.prior, i.init, i.steps, i.views_per_step, i.resolution)
            found.setdefault(key, []).append(float(seconds))
    return {key: sum(values) / len(values) for key, values in found.items()}


def _kind(run: RunSpec) -> tuple[Any, ...]:
    i = run.identity
    return i.method, i.representation, i.prior, i.init, i.steps, i.views_per_step, i.resolution


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)
