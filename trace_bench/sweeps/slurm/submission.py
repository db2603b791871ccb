"""A sweep on Slurm through submitit: submit what is missing, record it, and wait unless detach=true.

The launcher's settings (conf/hydra/launcher/slurm*.yaml) are those of hydra-submitit-launcher. The plugin
itself is not used: it composes the config again when a job starts, submits finished runs, ignores
MaxArraySize, and hangs or gives up on jobs that Slurm killed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trace_bench.run_folder.manifest import ManifestError, is_done, read_manifest
from trace_bench.runs.identity import RunSpec
from trace_bench.settings.config import Job
from trace_bench.sweeps import sweep_plan
from trace_bench.sweeps.budget import cost_of
from trace_bench.sweeps.slurm import commands as slurm
from trace_bench.sweeps.slurm.worker import SlurmJob
from trace_bench.system.errors import TraceBenchError

POLL_S = (1.0, 30.0)  # limits of the polling interval, which is a twentieth of the time waited
#: parameters that submitit names alike for all schedulers
_BASE = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
_BASE |= {"stderr_to_stdout"}
log = logging.getLogger(__name__)


@dataclass
class Submission:
    """Submitted jobs, and why jobs ended without finishing their runs."""

    jobs: dict[str, tuple[RunSpec, ...]] = field(default_factory=dict)  # Slurm id -> its runs
    reasons: dict[Path, str] = field(default_factory=dict)  # run folder -> why its job did not finish it
    logs: str = ""  # the launcher's submitit_folder


def is_slurm(launcher: Mapping[str, Any]) -> bool:
    """Whether these are settings of a Slurm launcher."""
    return str(launcher.get("_target_", "")).endswith(".SlurmLauncher")


def submit(
    plan: Sequence[RunSpec], missing: Sequence[RunSpec], launcher: Mapping[str, Any], command: Sequence[str]
) -> Submission:
    """Submit the missing runs of a plan, except those in waiting or running jobs of earlier submissions."""
    if not slurm.is_here():
        raise TraceBenchError(
            "This launcher needs Slurm, but sbatch and squeue are not on this machine's PATH; "
            "use hydra/launcher=local, or start a local Slurm with scripts/slurm_dev_cluster."
        )
    if launcher.get("tasks_per_node", 1) != 1 or launcher.get("nodes", 1) != 1:
        raise TraceBenchError(
            "hydra.launcher.nodes and tasks_per_node must be 1: a job is one process on one node."
        )
    root = plan[0].job.root
    names = [name_of(run) for run in plan]
    try:
        issued = sweep_plan.write_plan(root, command, {name_of(run): cost_of(run.job) for run in plan})
    except OSError as error:
        raise TraceBenchError(f"{root} is not writable ({error.strerror}).") from error
    submission = _under_way(root, missing)
    submission.logs = str(launcher["submitit_folder"])
    taken = {run.folder for runs in submission.jobs.values() for run in runs}
    packs = pack([run for run in missing if run.folder not in taken])
    if taken:
        print(f"{len(taken)} runs are in {len(submission.jobs)} jobs that were submitted earlier.")
    for jobs in _submit_packs(packs, launcher, issued):
        submission.jobs |= jobs
        sweep_plan.write_jobs(
            root, names, {key: [name_of(run) for run in runs] for key, runs in jobs.items()}
        )
    skipped = len(plan) - len(missing)
    print(
        f"Submitted {sum(map(len, packs))} runs in {len(packs)} jobs"
        f"{f'; {skipped} of {len(plan)} runs are done' if skipped else ''}.",
        flush=True,
    )
    return submission


def pack(runs: Iterable[RunSpec]) -> list[tuple[RunSpec, ...]]:
    """Group runs into jobs of at most `prompts_per_job`; the runs of a job differ only in the prompt."""
    groups: dict[str, list[RunSpec]] = {}
    keys: dict[int, str] = {}
    for run in runs:
        if id(run.job) not in keys:
            keys[id(run.job)] = _key(run.job)
        groups.setdefault(keys[id(run.job)], []).append(run)
    packs = []
    for group in groups.values():
        size = group[0].job.prompts_per_job
        packs += [tuple(group[start : start + size]) for start in range(0, len(group), size)]
    return packs


def _key(job: Job) -> str:
    """Key of runs that can share a job: all settings except the prompt and its files."""
    settings = vars(job) | {"prompt": None}
    for group in ("method", "init"):
        inputs = settings[group].get("inputs") or {}
        settings[group] = {key: value for key, value in settings[group].items() if key not in inputs}
    return json.dumps(settings, sort_keys=True)


def lanes(count: int, size: int, parallelism: int) -> list[tuple[int, int, int | None]]:
    """Split `count` jobs into equal arrays of at most `size`: (jobs, parallel jobs, array to wait for).

    Arrays that run at the same time share `parallelism`. If there are more arrays than that, the others wait
    for an earlier array to end.
    """
    arrays = -(-count // size)
    beside = min(arrays, parallelism)
    shares = [parallelism // beside + (lane < parallelism % beside) for lane in range(beside)]
    return [
        (
            count // arrays + (index < count % arrays),
            shares[index % beside],
            index - beside if index >= beside else None,
        )
        for index in range(arrays)
    ]


def _submit_packs(
    packs: Sequence[tuple[RunSpec, ...]], launcher: Mapping[str, Any], issued: str
) -> Iterable[dict[str, tuple[RunSpec, ...]]]:
    """Submit packs as arrays within Slurm's limit; yields each array's jobs as soon as it has an id."""
    if not packs:
        return
    first: list[str] = []  # id of each array
    left = list(packs)
    for count, at_a_time, after in lanes(
        len(packs), slurm.max_array_size(), max(1, int(launcher["array_parallelism"]))
    ):
        settings = dict(launcher) | {"array_parallelism": at_a_time}
        if after is not None:
            more = {"dependency": f"afterany:{first[after]}"}
            settings["additional_parameters"] = {**(launcher.get("additional_parameters") or {}), **more}
        now, left = left[:count], left[count:]
        ids = _submit_array([SlurmJob.of(runs, issued) for runs in now], settings)
        first.append(ids[0].partition("_")[0])
        yield dict(zip(ids, now, strict=True))


def _submit_array(works: Sequence[SlurmJob], launcher: Mapping[str, Any]) -> list[str]:
    """Submit with submitit; returns the Slurm id of each job."""
    import submitit

    own = {key: value for key, value in launcher.items() if key not in ("_target_", "submitit_folder")}
    retries = own.pop("max_num_timeout")
    given = {key: value for key, value in own.items() if value is not None}
    settings = {key if key in _BASE else f"slurm_{key}": value for key, value in given.items()}
    try:
        with slurm.outside_a_job():
            executor = submitit.AutoExecutor(
                launcher["submitit_folder"], cluster="slurm", slurm_max_num_timeout=retries
            )
            executor.update_parameters(**settings)
            with executor.batch():
                jobs = [executor.submit(work) for work in works]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        lines = dict.fromkeys(line.strip() for line in str(error).splitlines() if "sbatch:" in line)
        raise TraceBenchError(
            f"Slurm refused the jobs: {'; '.join(lines) or error}; set hydra.launcher.partition=..., "
            "account=..., gres=... or whatever your cluster requires."
        ) from error
    return [job.job_id for job in jobs]


def _under_way(root: Path, missing: Sequence[RunSpec]) -> Submission:
    """Waiting or running jobs of earlier submissions that will make some of the missing runs."""
    wanted = {name_of(run): run for run in missing}
    problems: list[str] = []
    sweeps = sweep_plan.read_sweeps(root, problems)
    for problem in problems:
        log.warning("%s", problem)
    jobs = {
        job_id: tuple(wanted[name] for name in names if name in wanted)
        for job_id, names in sweep_plan.jobs_of(sweeps)
    }
    alive = slurm.queued(job_id for job_id, runs in jobs.items() if runs)
    return Submission({job_id: jobs[job_id] for job_id in alive})


def wait(submission: Submission, say: Callable[[str], None] = print) -> None:
    """Wait until every job has ended. Asks Slurm only, because a killed job leaves no other sign."""
    began, said = time.monotonic(), ""
    open_jobs = dict(submission.jobs)
    while open_jobs:
        try:
            alive = slurm.queued(open_jobs)
        except slurm.SlurmError as error:  # the controller may be restarting
            log.warning("%s Retrying.", error)
            alive = dict.fromkeys(open_jobs, "UNKNOWN")
        for job_id in [job_id for job_id in open_jobs if job_id not in alive]:
            _note_end(submission, job_id, open_jobs.pop(job_id))
        if open_jobs and _stops(submission, open_jobs):
            slurm.cancel(open_jobs)
        running = sum(state in ("RUNNING", "COMPLETING") for state in alive.values())
        ended = len(submission.jobs) - len(alive)
        text = f"Slurm: {ended} of {len(submission.jobs)} jobs ended, {running} running"
        if text != said:
            say(text)
            said = text
        if open_jobs:
            time.sleep(min(max((time.monotonic() - began) / 20, POLL_S[0]), POLL_S[1]))


def _note_end(submission: Submission, job_id: str, runs: Sequence[RunSpec]) -> None:
    """Record why a job ended, if it leaves unfinished runs."""
    unfinished = [run for run in runs if status_of(run) not in ("done", "failed")]
    if unfinished:
        state = slurm.how_it_ended(job_id) or "final state unknown to Slurm"
        log_file = Path(submission.logs.replace("%j", job_id.partition("_")[0])) / f"{job_id}_0_log.err"
        for run in unfinished:
            submission.reasons[run.folder] = f"Slurm job {job_id}: {state}; its log is {log_file}"


def _stops(submission: Submission, open_jobs: Mapping[str, Sequence[RunSpec]]) -> bool:
    """Whether to stop the sweep: on_error=stop is set and a run failed."""
    runs = next(iter(open_jobs.values()))
    if runs[0].job.on_error != "stop":
        return False
    return any(status_of(run) == "failed" for runs in submission.jobs.values() for run in runs)


def status_of(run: RunSpec) -> str:
    """Status in the run's folder: done, failed, preempted, running, or missing."""
    try:
        manifest = read_manifest(run.folder)
    except (ManifestError, OSError):
        return "missing"
    if manifest is None or manifest.fingerprint != run.fingerprint:
        return "missing"
    if manifest.status == "done" and not is_done(run.folder, manifest):
        return "missing"
    return manifest.status


def name_of(run: RunSpec) -> str:
    """The run's folder, relative to the output root."""
    return run.folder.relative_to(run.job.root).as_posix()
