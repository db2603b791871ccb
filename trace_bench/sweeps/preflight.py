"""What is checked before the first run: everything that all runs would otherwise fail with, one by one.

Each part of a plan is checked once, however many runs share it. The checks read names, sizes and
configurations; they load no weights. What is missing is downloaded here if the runs are made on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trace_bench.run_folder.tracking import check_tracker
from trace_bench.runs.identity import RunSpec
from trace_bench.runs.known_prompts import check_prompt
from trace_bench.settings.config import Job, build, settings_of
from trace_bench.sweeps.slurm.submission import is_slurm
from trace_bench.sweeps.warm import apart
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.targets import locate

#: Bytes of a run's pictures and geometry for each pixel of each view: 5.6 MB for 120 views of 128 x 128.
_BYTES_PER_PIXEL = 2.85
#: Lines of a launcher's setup with one of these let the nodes look elsewhere than this machine does.
_OWN_CACHE = ("HF_HOME", "HF_HUB_CACHE")


def preflight(runs: Sequence[RunSpec], launcher: Mapping[str, Any]) -> None:
    """Refuse a plan whose runs cannot work; `launcher` is {} for a single run.

    Raises:
        TraceBenchError: a prompt that the prior does not know, files of a prior or init that are missing
            or cut off, a disk without space, an output root that cannot be written.
    """
    check_roots(runs)
    for tracker in dict.fromkeys(run.job.tracker for run in runs):
        check_tracker(tracker)
    elsewhere = is_slurm(launcher) and any(
        name in str(line) for line in launcher.get("setup") or () for name in _OWN_CACHE
    )
    download = not is_slurm(launcher) and not any(run.job.dry_run for run in runs)
    apart(_check_parts, _different(runs), not elsewhere, download)


def _check_parts(runs: Sequence[RunSpec], models: bool, download: bool) -> None:
    """Check what only the imported classes can tell: the prompts and, with `models`, the files."""
    for run in runs:
        check_prompt(run)
    if models:
        check_models(runs, download)


def _different(runs: Iterable[RunSpec]) -> list[RunSpec]:
    """The runs without those that differ from an earlier one in nothing that is checked here, without the
    prompts of other runs."""
    keys: dict[int, str] = {}  # runs share the settings of their job

    def key(part: dict[str, Any]) -> str:
        if id(part) not in keys:
            keys[id(part)] = _key(part)
        return keys[id(part)]

    found: dict[tuple[Any, ...], RunSpec] = {}
    for run in runs:
        job = run.job
        parts = (key(job.prior), key(job.method), key(job.init))
        found.setdefault((*parts, job.distils, job.seed, run.prompt.text), run)
    return [RunSpec(run.job, run.prompt, run.prompt_set.only([run.prompt])) for run in found.values()]


def check_roots(runs: Sequence[RunSpec]) -> None:
    """Make the output roots, except with dry_run=true, and refuse those without enough space."""
    for root in dict.fromkeys(run.job.root for run in runs):
        jobs = [run.job for run in runs if run.job.root == root]
        if not any(job.dry_run for job in jobs):
            make_root(root)
        check_disk(root, jobs)


def check_models(runs: Iterable[RunSpec], download: bool) -> None:
    """Refuse if files of a prior, of its adapter or of an init are not on this machine.

    download: fetch them from the hub; False only looks.
    """
    priors: set[str] = set()
    inits: dict[str, list[RunSpec]] = {}
    for run in runs:
        if run.job.distils:
            inits.setdefault(_key(run.job.init), []).append(run)
            key = _key([run.job.prior, run.job.method])
            if key not in priors:
                priors.add(key)
                _check_prior(run.job, download)
    for users in inits.values():
        made = build("init", users[0].job.init)
        check = getattr(made, "check_files", None)
        if check is not None:
            try:
                check([(run.prompt.text, run.job.seed) for run in users], download=download)
            except TraceBenchError as error:
                name = users[0].job.choices["init"]
                why = str(error).rstrip(".")
                raise TraceBenchError(
                    f"init={name}: {why}, or choose another init, such as init=random."
                ) from error


def _check_prior(job: Job, download: bool) -> None:
    """Check the files of the job's prior; those of the adapter only if the method makes one."""
    check = getattr(locate("prior", job.prior), "check_files", None)
    if check is not None:
        check(**settings_of(job.prior), adapter=uses_adapter(job), download=download)


def uses_adapter(job: Job) -> bool:
    """Whether the job's method makes an adapter of the prior, found out on a prior without networks.

    Raises:
        TraceBenchError: the method refuses its settings.
    """
    from trace_bench.sweeps.budget import prior_without_networks  # imports torch

    prior = prior_without_networks()
    try:
        build("method", job.method, prior, guidance_scale=job.scale, seed=job.seed)
    except TraceBenchError:
        raise
    except Exception:  # noqa: BLE001  a method of the user's may need more of a prior; its run will tell
        return False
    return prior.adapters_made > 0


def bytes_of(job: Job) -> int:
    """About how much disk a finished run takes: its pictures, their geometry, and the asset."""
    views = 1 if job.choices["representation"] == "image" else int(job.rig["n_views"])
    return int(views * int(job.rig["resolution"]) ** 2 * _BYTES_PER_PIXEL)


def free_bytes(root: Path) -> int:
    """Free space on the disk of an output root, which may not exist yet."""
    try:
        return shutil.disk_usage(_existing(root)).free
    except OSError as error:
        raise TraceBenchError(f"output_root={root} cannot be used ({error.strerror}).") from error


def check_disk(root: Path, jobs: Sequence[Job]) -> None:
    """Refuse a plan that needs more disk than is free, and a root that is no place for files."""
    place = _existing(root)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "not a folder" if not place.is_dir() else "not writable"
        raise TraceBenchError(
            f"output_root={root} cannot be used: {place} is {why}; choose another output_root."
        )
    needed, free = sum(map(bytes_of, jobs)), free_bytes(root)
    if needed > free:
        runs = f"{len(jobs)} runs need" if len(jobs) > 1 else "1 run needs"
        raise TraceBenchError(
            f"{runs} about {size(needed)}, but output_root={root} has {size(free)} free; free some "
            "space, or choose another output_root."
        )


def make_root(root: Path) -> None:
    """Make the output root, so that a name which cannot be a folder is refused before any work."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TraceBenchError(
            f"output_root={root} cannot be made ({error.strerror}); choose another output_root."
        ) from error


def size(count: float) -> str:
    """Bytes for people: 118 MB, 59 GB."""
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.3g} TB"


def _existing(root: Path) -> Path:
    """The root, or its nearest parent that exists."""
    for path in (root.absolute(), *root.absolute().parents):
        try:
            if path.exists():
                return path
        except OSError as error:
            raise TraceBenchError(
                f"output_root={root} cannot be used ({error.strerror}); choose another output_root."
            ) from error
    return Path("/")


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
