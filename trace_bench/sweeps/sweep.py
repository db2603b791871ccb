"""The command: plan and check the requested runs, hand them to Hydra, report the result.

The plan is made from the configs only, and the result is read from the run folders. Both therefore work for
any launcher, on whichever machine the jobs ran.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from trace_bench.run_folder.index import failure
from trace_bench.runs.identity import RunSpec, runs_of
from trace_bench.settings.config import Job
from trace_bench.sweeps.interrupt import listening, passing_on
from trace_bench.sweeps.planning import (
    check_jobs,
    compose_config,
    launcher_of,
    make_plan,
    readable_overrides,
)
from trace_bench.sweeps.slurm.submission import is_slurm, name_of, status_of, submit, wait
from trace_bench.sweeps.slurm.worker import make_assets
from trace_bench.sweeps.sweep_plan import write_plan
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:  # imports torch
    from trace_bench.runs.run import Outcome

EXIT_FAILED, EXIT_MISTAKE, EXIT_UNFINISHED, EXIT_INTERRUPTED = 1, 2, 75, 130  # 75: sysexits' "try again"
log = logging.getLogger(__name__)
PICTURES = ("preview.png", "turntable.mp4", "renders")
_LISTED = 12
_ended: dict[Path, Outcome] = {}  # runs made by this process
_slurm_reasons: dict[Path, str] = {}  # why a Slurm job did not finish a run
_NOT_RUNS = ("help", "hydra_help", "version", "shell_completion", "info", "cfg", "experimental_rerun")


def run_job(cfg: DictConfig) -> None:
    """Hydra's task: make the assets of one job, one after the other, with one loaded prior.

    An error in an asset is not raised, because Hydra would end the sweep. A signal and on_error=stop raise
    SystemExit, which does end it.
    """
    try:
        job = Job.from_config(cfg, HydraConfig.get())
        runs = runs_of(job)
    except TraceBenchError as error:  # on another machine than the planning one, for example a missing file
        log.error("%s", error)
        raise SystemExit(EXIT_MISTAKE) from error
    with listening() as stop:
        for outcome in make_assets(runs, stop):
            _ended[outcome.folder] = outcome
    if stop():
        raise SystemExit(stop.exit_code)
    if job.on_error == "stop" and outcome.status == "failed":
        raise SystemExit(EXIT_FAILED)


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code, 0 if all requested assets exist."""
    args = get_args_parser().parse_intermixed_args(list(argv))  # flags may appear between overrides
    _ended.clear()
    _slurm_reasons.clear()
    try:
        overrides = readable_overrides(args.overrides, args.multirun)
        if any(getattr(args, name, None) for name in _NOT_RUNS):
            if args.cfg:
                compose_config(overrides, args.config_dir)
            _hand_over(args, argv, overrides)
            return 0
        plan = make_plan(overrides, args.multirun, args.config_dir)
        before = {run.folder for run in plan if not run.job.force and status_of(run) == "done"}
        check_jobs(run.job for run in plan if run.folder not in before)
    except TraceBenchError as error:
        print(f"trace_bench: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    code = 0
    if len(before) < len(plan):
        try:
            missing = [run for run in plan if run.folder not in before]
            if not _runs_on_slurm(plan, missing, overrides, args, argv):
                _hand_over(args, argv, overrides)
            elif plan[0].job.detach:
                return 0
        except TraceBenchError as error:
            print(f"trace_bench: {error}", file=sys.stderr)
            return EXIT_MISTAKE
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else EXIT_FAILED
        except KeyboardInterrupt:  # a second Ctrl-C, or one between two runs
            code = EXIT_INTERRUPTED
    verdict = _verdict(plan, before)
    return code or verdict


def _runs_on_slurm(
    plan: Sequence[RunSpec],
    missing: Sequence[RunSpec],
    overrides: Sequence[str],
    args: argparse.Namespace,
    argv: Sequence[str],
) -> bool:
    """Submit the missing runs, and wait for them unless detach=true; False if the launcher is not Slurm's."""
    job = plan[0].job
    launcher = launcher_of(overrides, args.config_dir) if args.multirun else {}
    if not is_slurm(launcher):
        if job.detach:
            raise TraceBenchError("detach=true needs -m and a Slurm launcher (hydra/launcher=slurm_a100).")
        if not args.multirun and any(item.startswith("hydra/launcher=") for item in overrides):
            raise TraceBenchError("hydra/launcher=... applies to sweeps only; add -m.")
        if args.multirun:
            with contextlib.suppress(OSError):  # the runs will report it themselves
                write_plan(job.root, ["python", "-m", "trace_bench", *argv], [name_of(run) for run in plan])
        return False
    if job.detach and job.on_error == "stop":
        raise TraceBenchError("on_error=stop needs a waiting command; drop detach=true.")
    submission = submit(plan, missing, launcher, ["python", "-m", "trace_bench", *argv])
    follow = f"python -m trace_bench.status output_root={shlex.quote(job.output_root)}"
    print(f"Follow it with: {follow} --watch", flush=True)
    if job.detach:
        return True
    try:
        wait(submission)
    except KeyboardInterrupt:
        print("\nThe jobs continue without this command; use scancel to end them.", file=sys.stderr)
        raise
    _slurm_reasons.update(submission.reasons)
    return True


def _hand_over(args: argparse.Namespace, argv: Sequence[str], overrides: list[str]) -> None:
    """Run Hydra with the rewritten overrides."""
    flags = [arg for arg in argv if arg not in args.overrides]
    sys.argv = [sys.argv[0], *flags, *overrides]
    with passing_on():
        hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")(run_job)()


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
        why = outcome.message if outcome else _slurm_reasons.get(folder, "")
        print(f"Not finished: {folder}\n  {why}".rstrip(), file=sys.stderr)
    if failed:
        return EXIT_FAILED
    return EXIT_UNFINISHED if rest else 0


def _reason(folder: Path) -> str:
    """Why a run failed: from this process, or from the error.json that another process left."""
    return _ended[folder].message if folder in _ended else failure(folder)
