"""`trace-bench check method=NAME`: check that a class of your own meets the conventions of trace_bench.

    trace-bench check method=mine --config-dir conf
    trace-bench check representation=mine metric=mine --config-dir conf
    trace-bench check prior=tiny

Prints one line per check: ok or FAIL, what was checked, and what was tried or what is wrong. A method runs
for a few steps on the tiny prior and in the core with representation=gaussians, a representation in the core
with method=sds; name a prior, a representation or a method to use those instead. A metric scores a true toy
object and an empty one. Other settings (method.max_step=700, metrics.mine.views=4) work as in a run.

Exit codes: 0 all checks are ok, 1 a check failed, 2 a mistake in the command, the YAML or the class.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trace_bench.system.checks import Check, CheckResult, Subject
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.output import forgive_closed_output

if TYPE_CHECKING:  # imports torch
    from evaluation.metrics.base import Metric
    from trace_bench.runs.identity import RunSpec
    from trace_bench.settings.config import Job

CHECKED = ("method", "representation", "prior", "metric")
#: Defaults of a check.
QUICK = {
    "method": "sds",
    "representation": "gaussians",
    "prior": "tiny",
    "prompt_set": "toy",
    "device": "cpu",
}
PROMPT, VIEWS, RESOLUTION = "a red cube", 4, 64


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    forgive_closed_output()
    parser = argparse.ArgumentParser(
        prog="trace-bench check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-dir", metavar="FOLDER", help="your own conf/, with method/mine.yaml and so on"
    )
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help=f"one of {', '.join(CHECKED)} at least"
    )
    args = parser.parse_intermixed_args(list(argv))
    total = failed = 0
    try:
        for result in results(args.settings, args.config_dir):
            print(result, flush=True)
            total, failed = total + 1, failed + (not result.ok)
    except TraceBenchError as error:
        print(f"trace-bench check: {error}", file=sys.stderr)
        return 2
    print(f"{total} checks, {failed or 'none'} failed.")
    return 1 if failed else 0


def results(settings: Sequence[str], config_dir: str | None = None) -> Iterator[CheckResult]:
    """The checks of everything that `settings` name, in the order in which they are run.

    Raises:
        TraceBenchError: what is named cannot be found, imported or made, or lacks something it must have.
    """
    named = {key: value.strip("[]") for key, _, value in (item.partition("=") for item in settings)}
    if not set(CHECKED) & set(named):
        raise TraceBenchError(f"Name what to check: {', '.join(f'{key}=NAME' for key in CHECKED)}.")
    of_metrics = [item for item in settings if item.startswith(("metric=", "metrics."))]
    of_runs = [item for item in settings if item not in of_metrics]
    of_runs += [f"{key}={value}" for key, value in QUICK.items() if key not in named]
    if set(CHECKED) - {"metric"} & set(named):
        yield from _of_a_run(of_runs, set(named), config_dir)
    if "metric" in named:
        yield from _of_metrics(of_metrics, named["metric"], config_dir)


def _of_a_run(overrides: Sequence[str], named: set[str], config_dir: str | None) -> Iterator[CheckResult]:
    """The checks of a method, a representation and a prior, as one run has them."""
    from trace_bench.priors import check as priors
    from trace_bench.runs.build import load_prior, resolve_device
    from trace_bench.sweeps.planning import check_jobs, make_plan

    spec: RunSpec = make_plan(overrides, multirun=False, config_dir=config_dir)[0]
    job = spec.job
    if not job.distils:
        raise TraceBenchError(f"method={job.choices['method']} distils nothing; there is nothing to check.")
    check_jobs([job])
    prior = load_prior(job, resolve_device(job.device))
    if "prior" in named:
        yield from _run(priors.CHECKS, priors.Subject(prior, spec.prompt.text))
    if named & {"method", "representation"}:
        yield from _of_parts(job, prior, spec.prompt.text, named)


def _of_parts(job: Job, prior: Any, prompt: str, named: set[str]) -> Iterator[CheckResult]:
    """The checks of a method and of a representation, one by one and together."""
    from trace_bench.methods import check as methods
    from trace_bench.priors.text import embed_prompt
    from trace_bench.representations import check as representations
    from trace_bench.runs import check as pairs
    from trace_bench.runs.build import make_init, make_method, make_representation
    from trace_bench.settings.config import settings_of
    from trace_bench.system.targets import locate

    points = make_init(job, prompt, prior.device)
    fresh_method = partial(make_method, job, prior)
    settings = settings_of(job.representation)
    if "method" in named:
        text = embed_prompt(
            prior,
            prompt,
            job.method.get("negative_prompt") or "",
            job.method.get("prompt_suffixes"),
        )
        yield from _run(methods.CHECKS, methods.Subject(fresh_method, prior, text, job.method))
    if "representation" in named:
        cls: Any = locate("representation", job.representation)
        subject = representations.Subject(
            lambda given: make_representation(job, prior, given, prior.device),
            cls,
            points,
            settings,
            prior.latent_shape,
            job.resolution,
        )
        yield from _run(representations.CHECKS, subject)
    both = pairs.Subject(
        lambda: (fresh_method(), make_representation(job, prior, points, prior.device)),
        prior,
        settings,
        prompt,
        job.resolution,
    )
    yield from _run(pairs.CHECKS, both)


def _of_metrics(overrides: Sequence[str], name: str, config_dir: str | None) -> Iterator[CheckResult]:
    from evaluation.metrics import check as metrics
    from evaluation.metrics.load import load_metrics
    from trace_bench.settings.composing import compose_config

    choices = [item for item in overrides if not item.startswith("metric=")]
    config = compose_config([f"metric=[{name}]", *choices], config_dir, "evaluation")
    for metric in load_metrics(config).values():
        with tempfile.TemporaryDirectory() as folder:
            yield from _run(metrics.CHECKS, sample_runs(metric, Path(folder)))


def sample_runs(metric: Metric, folder: Path) -> Any:
    """Two finished runs for a metric, under `folder`: a true red cube and an asset with nothing in it.

    They are of the tiny prior, or of sd21 if the metric skips the tiny prior.

    Raises:
        TraceBenchError: the metric applies to neither, or its weights are not on this machine.
    """
    from evaluation.metrics.check import Subject as MetricSubject
    from trace_bench.run_folder.reading import Run

    run, empty = (_write_run(folder / name, name == "empty") for name in ("cube", "empty"))
    for prior in ("tiny", "sd21"):
        run, empty = (
            Run(one.folder, replace(one.manifest, run=replace(one.identity, prior=prior)))
            for one in (run, empty)
        )
        if metric.applies(run):
            metric.weights(run)
            return MetricSubject(metric, run, empty)
    raise TraceBenchError(f"The metric {metric.name!r} applies to no run that could be made here.")


def _write_run(folder: Path, is_empty: bool) -> Any:
    """A finished run's folder with VIEWS pictures of a toy object, or of nothing."""
    import numpy as np

    from trace_bench.cameras import EvaluationRig
    from trace_bench.run_folder.manifest import Manifest, RunIdentity, write_manifest
    from trace_bench.run_folder.reading import Run
    from trace_bench.run_folder.rendering import RigRenders, write_views
    from trace_bench.toyworld import scene_from_prompt

    cameras = EvaluationRig(n_views=VIEWS, resolution=RESOLUTION).cameras()
    seen = scene_from_prompt(PROMPT).render(cameras)
    rgb, alpha, depth = (value.numpy() for value in (seen.rgb, seen.alpha[..., 0], seen.depth[..., 0]))
    if is_empty:
        rgb, alpha, depth = np.ones_like(rgb), np.zeros_like(alpha), np.zeros_like(depth)
    normal = alpha[..., None] * (0.5 * seen.normal.numpy() + 0.5) + (1.0 - alpha[..., None])
    pictures = {"rgb": rgb, "normal": normal, "alpha": alpha}
    views = RigRenders(
        **{name: (255.0 * value).round().astype(np.uint8) for name, value in pictures.items()},
        depth=depth.astype(np.float16),
    )
    folder.mkdir()
    files, n_views = write_views(views, cameras, folder)
    identity = RunIdentity(
        method="sds", representation="gaussians", init="random", prior="tiny", protocol="toy",
        prompt_set="toy", prompt_id="0", prompt=PROMPT, guidance_scale=7.5, seed=0, steps=240,
        views_per_step=1, resolution=RESOLUTION,
    )  # fmt: skip
    manifest = Manifest("done", f"{int(is_empty)}" * 64, identity, finished="2026-01-01T00:00:00+00:00")
    manifest.files, manifest.views = files, n_views
    write_manifest(folder, manifest)
    return Run(folder, manifest)


def _run(checks: Iterable[Check[Subject]], subject: Subject) -> Iterator[CheckResult]:
    for check in checks:
        yield check(subject)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
