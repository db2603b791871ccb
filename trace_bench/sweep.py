"""The command: plan what is asked for and refuse it early, hand it to Hydra, say how it went.

The plan is made from the configs alone and the verdict is read from the run folders, so that both hold for
any launcher, whichever machine the jobs ran on.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from trace_bench.config import Job, check_settings, settings_of
from trace_bench.config_path import conf_dir
from trace_bench.errors import TraceBenchError
from trace_bench.identity import RunSpec, runs_of
from trace_bench.interrupt import listening
from trace_bench.manifest import ManifestError, is_done, read_manifest
from trace_bench.planning import check_composes, make_plan, readable_overrides

if TYPE_CHECKING:  # imports torch
    from trace_bench.run import Outcome

EXIT_FAILED, EXIT_MISTAKE, EXIT_UNFINISHED, EXIT_INTERRUPTED = 1, 2, 75, 130  # 75: sysexits' "try again"
log = logging.getLogger(__name__)
PICTURES = ("preview.png", "turntable.mp4", "renders")
_LISTED = 12
_ended: dict[Path, Outcome] = {}  # what this process did itself
_NOT_RUNS = ("help", "hydra_help", "version", "shell_completion", "info", "cfg", "experimental_rerun")


def run_job(cfg: DictConfig) -> None:
    """Hydra's task: make the assets of one job, one after the other, with one loaded prior.

    Nothing that goes wrong with an asset is raised, since Hydra would end the sweep with it; a signal and
    on_error=stop leave through SystemExit, which does end it.
    """
    from trace_bench.run import make_asset

    try:
        job = Job.from_config(cfg, HydraConfig.get().runtime.choices)
        runs = runs_of(job)
    except (
        TraceBenchError
    ) as error:  # on another machine than the one that planned it, such as a missing file
        log.error("%s", error)
        raise SystemExit(EXIT_MISTAKE) from error
    with listening() as stop:
        for spec in runs:
            outcome = _ended[spec.folder] = make_asset(spec, stop)
            if stop():
                raise SystemExit(stop.exit_code)
            if outcome.status == "failed" and job.on_error == "stop":
                raise SystemExit(EXIT_FAILED)


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code: 0 when everything that was asked for is there."""
    args = get_args_parser().parse_intermixed_args(list(argv))  # flags may stand between the overrides
    _ended.clear()
    try:
        overrides = readable_overrides(args.overrides, args.multirun)
        if any(getattr(args, name, None) for name in _NOT_RUNS):
            if args.cfg:
                check_composes(overrides, args.config_dir)
            _hand_over(args, argv, overrides)
            return 0
        plan = make_plan(overrides, args.multirun, args.config_dir)
        before = {run.folder for run in plan if not run.job.force and _status(run) == "done"}
        _check_settings(run.job for run in plan if run.folder not in before)
    except TraceBenchError as error:
        print(f"trace_bench: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    code = 0
    if len(before) < len(plan):
        try:
            _hand_over(args, argv, overrides)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else EXIT_FAILED
        except KeyboardInterrupt:  # a second Ctrl-C, or one between two runs
            code = EXIT_INTERRUPTED
    verdict = _verdict(plan, before)
    return code or verdict


def _check_settings(jobs: Iterable[Job]) -> None:
    """Refuse settings that a method, representation, prior or init does not take; loads no weights."""
    checked = set()
    for job in jobs:
        for group in ("method", "representation", "init", "prior"):
            spec = getattr(job, group)
            key = (group, spec.get("_target_"), *settings_of(spec))
            if key not in checked:
                check_settings(group, spec)
                checked.add(key)


def _hand_over(args: argparse.Namespace, argv: Sequence[str], overrides: list[str]) -> None:
    """Let Hydra do the rest, with the overrides as it reads them."""
    flags = [arg for arg in argv if arg not in args.overrides]
    sys.argv = [sys.argv[0], *flags, *overrides]
    hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")(run_job)()


def _status(run: RunSpec) -> str:
    """What the run's folder says: done, failed, preempted, running, or missing."""
    try:
        manifest = read_manifest(run.folder)
    except (ManifestError, OSError):
        return "missing"
    if manifest is None or (manifest.status == "done" and not is_done(run.folder, manifest)):
        return "missing"
    return manifest.status


def _verdict(plan: Sequence[RunSpec], before: set[Path]) -> int:
    """Print how the runs ended, where the pictures are and what failed; the exit code says the same."""
    done: list[Path] = []
    failed: list[Path] = []
    rest: list[Path] = []
    for run in plan:
        outcome = _ended.get(run.folder)
        status = outcome.status if outcome is not None else _status(run)
        {"done": done, "skipped": done, "failed": failed}.get(status, rest).append(run.folder)
    if done:
        names = [name for name in PICTURES if (done[0] / name).exists()]
        print(f"\nPictures of {len(done)} of {len(plan)} assets: {', '.join(names)} in", flush=True)
        for folder in done[:_LISTED]:
            print(f"  {folder}{' (made before)' if folder in before else ''}")
        if len(done) > _LISTED:
            print(f"  ... and {len(done) - _LISTED} more under {plan[0].job.root / 'runs'}")
    for folder in failed:
        print(f"Failed: {folder}\n  {_reason(folder)}", file=sys.stderr)
    for folder in rest:
        outcome = _ended.get(folder)
        print(f"Not finished: {folder}\n  {outcome.message if outcome else ''}".rstrip(), file=sys.stderr)
    if failed:
        return EXIT_FAILED
    return EXIT_UNFINISHED if rest else 0


def _reason(folder: Path) -> str:
    """Why a run failed, from this process or from the record that another left."""
    if folder in _ended:
        return _ended[folder].message
    try:
        record = json.loads((folder / "error.json").read_text(encoding="utf-8"))
        return f"{record['type']}: {record['message']} (step {record['step']})"
    except (OSError, ValueError, KeyError):
        return "see its log.txt"
