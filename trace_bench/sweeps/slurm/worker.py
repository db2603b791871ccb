"""A Slurm job's work: makes some runs, `lanes` at a time, and reacts to preemption.

A job carries its runs as planned, with all settings resolved: edits in conf/ while it waits have no effect. A
restarted job needs only the run folders. So it does not matter whether the job requeued itself, Slurm
requeued it after a preemption or a node failure, or the user ran the same command again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trace_bench.run_folder.manifest import ManifestError, read_manifest
from trace_bench.runs.identity import RunSpec
from trace_bench.sweeps.interrupt import StopRequest, listening
from trace_bench.sweeps.slurm import commands as slurm
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.uncollected import uncollected

if TYPE_CHECKING:  # imports torch
    from trace_bench.runs.run import Outcome

REQUEUE = signal.SIGUSR2  # submitit's requeue signal
log = logging.getLogger(__name__)


class RunsFailedError(TraceBenchError):
    """Some of a job's runs failed; raised at its end, so that Slurm sees a failed job."""


def make_assets(runs: Iterable[RunSpec], stop: StopRequest, lanes: int = 1) -> Iterator[Outcome]:
    """Make runs, `lanes` at a time, until one is interrupted, or fails with on_error=stop."""
    with uncollected():
        from trace_bench.runs.lanes import make_in_lanes

    yield from make_in_lanes(runs, lanes, stop)


@dataclass(frozen=True)
class SlurmJob:
    """The callable that submitit pickles, sends and runs."""

    runs: tuple[RunSpec, ...]
    fingerprints: tuple[str, ...]  # of the runs, at submission
    issued: str  # time of submission, in the manifest's format

    @staticmethod
    def of(runs: Sequence[RunSpec], issued: str) -> SlurmJob:
        """The work for `runs`; keeps only the needed part of their prompt sets."""
        light = [RunSpec(run.job, run.prompt, run.prompt_set.only([run.prompt])) for run in runs]
        return SlurmJob(tuple(light), tuple(run.fingerprint for run in runs), issued)

    def __call__(self) -> dict[str, int]:
        """Make the assets; returns the number of runs per final status."""
        logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
        self.check()
        outcomes: list[Outcome] = []
        with (
            listening() as stop,
            contextlib.suppress(KeyboardInterrupt),
        ):  # the time limit itself, after its warning
            outcomes.extend(make_assets(map(self.as_left, self.runs), stop, self.runs[0].job.lanes or 1))
        ended = [outcome.status for outcome in outcomes]
        if stop() and (len(ended) < len(self.runs) or "preempted" in ended):
            give_way(stop)
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        if failed:
            lines = [f"{outcome.folder}: {outcome.message}" for outcome in failed]
            raise RunsFailedError("\n".join([f"{len(failed)} of {len(self.runs)} runs failed.", *lines]))
        return {status: ended.count(status) for status in sorted(set(ended))}

    def checkpoint(self) -> Any:
        """What submitit resubmits: the same work, because the run folders record the progress."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def check(self) -> None:
        """Refuse to run anything other than what was submitted, for example with replaced weights."""
        for run, submitted in zip(self.runs, self.fingerprints, strict=True):
            if run.fingerprint != submitted:
                raise TraceBenchError(
                    f"{run.identity.method}, prompt {run.prompt.prompt_id}: the prior's files or the version "
                    "of trace_bench have changed since submission; run the command again."
                )

    def as_left(self, run: RunSpec) -> RunSpec:
        """The run, with force=true removed if this work already finished it before a requeue."""
        if not run.job.force:
            return run
        try:
            manifest = read_manifest(run.folder)
        except (ManifestError, OSError):
            return run
        made_here = manifest is not None and manifest.status == "done" and manifest.started >= self.issued
        return replace(run, job=replace(run.job, force=False)) if made_here else run


def give_way(stop: StopRequest) -> None:
    """Requeue the job if that is its own task, then end it; the runs have their checkpoints.

    Slurm's warning before the time limit is passed on to submitit, which requeues the job unless it has
    already been requeued max_num_timeout times. SIGTERM means a preemption or a cancellation.
    """
    job_id = os.environ.get("SLURM_JOB_ID", "")
    if stop.signum == REQUEUE or (stop.signum == signal.SIGTERM and slurm.is_preempted_with_grace(job_id)):
        signal.raise_signal(REQUEUE)
    raise SystemExit(stop.exit_code)
