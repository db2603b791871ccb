"""The command: plan and check the requested runs, make them, report the result.

The plan is made from the configs only, and the result is read from the run folders. Both therefore work on
whichever machine the runs are made. Hydra composes the plan's settings; it does not start the runs, because
it would compose them again, with a prompt as part of the configuration.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from trace_bench.run_folder.index import failure
from trace_bench.runs.identity import RunSpec
from trace_bench.settings.config import Job
from trace_bench.settings.typed_text import as_data, readable_overrides
from trace_bench.sweeps.budget import cost_of
from trace_bench.sweeps.display import Display
from trace_bench.sweeps.estimate import estimate
from trace_bench.sweeps.interrupt import listening
from trace_bench.sweeps.local import Ended, lanes_of, make_in_turn, make_in_workers, workers_of
from trace_bench.sweeps.planning import Fixed, check_jobs, compose_run, launcher_of, make_plan, one_value_each
from trace_bench.sweeps.preflight import check_roots, preflight
from trace_bench.sweeps.slurm.submission import is_slurm, name_of, status_of, submit, wait
from trace_bench.sweeps.status import Look
from trace_bench.sweeps.sweep_plan import write_plan
from trace_bench.sweeps.warm import fork_server
from trace_bench.sweeps.watching import Watching
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.output import forgive_closed_output
from trace_bench.system.uncollected import uncollected

EXIT_FAILED, EXIT_MISTAKE, EXIT_UNFINISHED, EXIT_INTERRUPTED = 1, 2, 75, 130  # 75: sysexits' "try again"
PICTURES = ("preview.png", "turntable.mp4", "renders")
_LISTED = 12
_LOOK_S = 10.0  # between two looks at the run folders of a Slurm sweep
_ended: dict[Path, Ended] = {}  # runs made by this process
_reasons: dict[Path, str] = {}  # why a job did not finish a run
_NOT_RUNS = ("help", "hydra_help", "version", "shell_completion", "info", "cfg", "experimental_rerun")


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code, 0 if all requested assets exist."""
    forgive_closed_output()
    args = get_args_parser().parse_intermixed_args(list(argv))  # flags may appear between overrides
    _ended.clear()
    _reasons.clear()
    try:
        overrides = readable_overrides(args.overrides, args.multirun)
        if any(getattr(args, name, None) for name in _NOT_RUNS):
            _show(args, argv, overrides)
            return 0
        fixed = Fixed(overrides, args.config_dir)
        with uncollected():
            plan = make_plan(overrides, args.multirun, args.config_dir, fixed)
        before = {run.folder for run in plan if not run.job.force and status_of(run) == "done"}
        missing = [run for run in plan if run.folder not in before]
        check_jobs(run.job for run in missing)
        launcher = _launcher(plan[0].job, overrides, fixed, args.multirun)
        if args.multirun:
            _say_prompts(plan, overrides)
        with _helpers(missing, launcher):
            if plan[0].job.dry_run:
                check_roots(missing)
                print(estimate(plan, missing, launcher))
            with uncollected():
                preflight(missing, launcher)
            if plan[0].job.dry_run:
                return 0
            command = ["python", "-m", "trace_bench", *argv]
            code = _make(plan, missing, launcher, command) if missing else 0
        if code:
            _say_interrupted(plan, command, is_slurm(launcher))
            return code
    except TraceBenchError as error:
        print(f"trace_bench: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    if code is None:
        return 0
    verdict = _verdict(plan, before)
    return code or verdict


def _launcher(job: Job, overrides: Sequence[str], fixed: Fixed, multirun: bool) -> dict[str, Any]:
    """The settings of the launcher; {} without -m."""
    launcher = launcher_of(fixed) if multirun else {}
    if is_slurm(launcher):
        if job.detach and job.on_error == "stop":
            raise TraceBenchError("on_error=stop needs a waiting command; drop detach=true.")
        return launcher
    if job.detach:
        raise TraceBenchError("detach=true needs -m and a Slurm launcher (hydra/launcher=slurm_a100).")
    if not multirun and any(item.startswith("hydra/launcher=") for item in overrides):
        raise TraceBenchError("hydra/launcher=... applies to sweeps only; add -m.")
    if launcher:
        workers_of(launcher)
    return launcher


def _helpers(missing: Sequence[RunSpec], launcher: Mapping[str, Any]) -> AbstractContextManager[None]:
    """The fork server, if other processes make the runs; this one then loads no torch."""
    workers = 0 if not launcher or is_slurm(launcher) else workers_of(launcher)
    if missing and (is_slurm(launcher) or workers > 1):
        return fork_server(missing, workers)
    return contextlib.nullcontext()


def _make(
    plan: Sequence[RunSpec], missing: Sequence[RunSpec], launcher: Mapping[str, Any], command: Sequence[str]
) -> int | None:
    """Make the missing runs; returns an exit code that a signal calls for, 0 without one, None if the command
    does not wait.
    """
    if is_slurm(launcher):
        return _make_on_slurm(plan, missing, launcher, command)
    workers = workers_of(launcher) if launcher else 0
    lanes = lanes_of(plan[0].job, launcher)
    if lanes > 1:  # the longest first: else one is left over at the end, and shares its calls with nobody
        plan, missing = (
            sorted(runs, key=lambda run: cost_of(run.job), reverse=True) for runs in (plan, missing)
        )
    if launcher:
        with contextlib.suppress(OSError):  # the runs will report it themselves
            write_plan(plan[0].job.root, command, {name_of(run): cost_of(run.job) for run in plan})
    with listening(says=False) as stop, Watching(plan, missing, max(workers, 1), stop, lanes) as watching:

        def ended(how: Ended) -> None:
            _ended[how.folder] = how
            watching.ended(how)

        told = stop, ended, watching.started, watching.say
        try:
            if workers > 1:
                make_in_workers(missing, workers, *told, lanes=lanes)
            else:
                make_in_turn(missing, *told, lanes=lanes)
        except KeyboardInterrupt:  # a second Ctrl-C
            return EXIT_INTERRUPTED
    return stop.exit_code if stop() else 0


def _make_on_slurm(
    plan: Sequence[RunSpec], missing: Sequence[RunSpec], launcher: Mapping[str, Any], command: Sequence[str]
) -> int | None:
    """Submit the missing runs, and wait for them unless detach=true."""
    job = plan[0].job
    submission = submit(plan, missing, launcher, command)
    follow = f"python -m trace_bench.status output_root={shlex.quote(job.output_root)}"
    print(f"Follow it with: {follow} --watch", flush=True)
    if job.detach:
        return None
    try:
        with Display(lambda: Look.at(job.root).view(), _LOOK_S) as display:
            wait(submission, display.say)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    _reasons.update(submission.reasons)
    return 0


def _say_prompts(plan: Sequence[RunSpec], overrides: Sequence[str]) -> None:
    """Say which prompts were understood, if the command names them."""
    if any(item.startswith("prompt=") for item in overrides):
        texts = list(dict.fromkeys(run.prompt.text for run in plan))
        shown = ", ".join(f'"{text}"' for text in texts[:_LISTED])
        more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
        print(f"{len(texts)} prompt{'s' if len(texts) > 1 else ''}: {shown}{more}", flush=True)


def _show(args: argparse.Namespace, argv: Sequence[str], overrides: Sequence[str]) -> None:
    """--help, --cfg and the like: what Hydra prints about the configuration."""
    if args.experimental_rerun:
        raise TraceBenchError(
            "--experimental-rerun is not supported; repeat the command, which resumes its runs."
        )
    if args.cfg or args.info:
        if args.multirun:
            flag = f"--cfg {args.cfg}" if args.cfg else f"--info {args.info}"
            raise TraceBenchError(
                f"{flag} shows the configuration of one run; leave out -m and choose one value a key."
            )
        one_value_each(overrides)
        compose_run(overrides, args.config_dir)
    flags = [arg for arg in argv if arg not in args.overrides]
    sys.argv = [sys.argv[0], *flags, *map(as_data, overrides)]
    hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")(_never)()


def _never(cfg: DictConfig) -> None:
    raise AssertionError("Hydra only shows the configuration here; the runs are made from the plan")


def _verdict(plan: Sequence[RunSpec], before: set[Path]) -> int:
    """Print how the runs ended, where the images are and what failed; returns the matching exit code."""
    done: list[Path] = []
    failed: list[Path] = []
    rest: list[Path] = []
    for run in plan:
        outcome = _ended.get(run.folder)
        status = outcome.status if outcome is not None else status_of(run)
        {"done": done, "skipped": done, "failed": failed}.get(status, rest).append(run.folder)
    if done:
        names = [name for name in PICTURES if (done[0] / name).exists()]
        print(f"\nImages of {len(done)} of {len(plan)} assets: {', '.join(names)} in", flush=True)
        for folder in done[:_LISTED]:
            print(f"  {folder}{' (made before)' if folder in before else ''}")
        if len(done) > _LISTED:
            print(f"  ... and {len(done) - _LISTED} more under {plan[0].job.root / 'runs'}")
    for folder in failed:
        print(f"Failed: {folder}\n  {_reason(folder)}", file=sys.stderr)
    for folder in rest:
        outcome = _ended.get(folder)
        why = outcome.message if outcome else _reasons.get(folder, "")
        print(f"Not finished: {folder}\n  {why}".rstrip(), file=sys.stderr)
    if failed:
        return EXIT_FAILED
    return EXIT_UNFINISHED if rest else 0


def _say_interrupted(plan: Sequence[RunSpec], command: Sequence[str], jobs_continue: bool) -> None:
    """Say in three lines what is done and how to go on."""
    ended = [outcome.status if (outcome := _ended.get(run.folder)) else status_of(run) for run in plan]
    done, failed = sum(status in ("done", "skipped") for status in ended), ended.count("failed")
    begun = sum(status in ("preempted", "running", "busy", "lost") for status in ended)
    root = plan[0].job.root / "runs"
    rest = len(plan) - done - failed - begun
    print(f"\nStopped: {done} of {len(plan)} assets are done, {failed} failed; see {root}.", file=sys.stderr)
    if jobs_continue:
        how = "The jobs continue without this command; use scancel to end them."
        print(f"{begun} begun, {rest} not started. {how}", file=sys.stderr)
    else:
        print(f"{begun} interrupted, with checkpoints; {rest} not started.", file=sys.stderr)
    print(f"The same command continues: {shlex.join(command)}", file=sys.stderr)


def _reason(folder: Path) -> str:
    """Why a run failed: from this process, or from the error.json that another process left."""
    return _ended[folder].message if folder in _ended else failure(folder)
