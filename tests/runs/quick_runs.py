"""Runs on the analytic prior that take a fraction of a second, and helpers for their folders."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from safetensors.torch import load_file

from trace_bench.run_folder.manifest import read_manifest
from trace_bench.runs.identity import RunSpec
from trace_bench.sweeps.planning import make_plan

CONF = str(Path(__file__).resolve().parents[1] / "conf")
STEPS = 12
QUICK = [
    "prior=analytic",
    "representation=image",
    "method=sds",
    f"steps={STEPS}",
    "guidance_scale=5",
    "log_every=3",
    "checkpoint.every_steps=4",
]
SMALL_3D = [
    "representation=gaussians",
    "resolution=8",
    "rig.resolution=16",
    "init.n=200",
]


@functools.cache
def planned(*overrides) -> RunSpec:
    (found,) = make_plan([*QUICK, *overrides], multirun=False, config_dir=CONF)
    return found


def spec(out, *overrides) -> RunSpec:
    found = planned(*overrides)
    return RunSpec(dataclasses.replace(found.job, output_root=str(out)), found.prompt, found.prompt_set)


def folders(out):
    return sorted(path.parent for path in out.glob("runs/*/*/*/*/*/manifest.json"))


def statuses(out):
    return [read_manifest(folder).status for folder in folders(out)]


def asset(folder):
    """The tensors of the asset as bytes, by name."""
    return {
        name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "asset.safetensors").items()
    }


def stop_at(step):
    """A should_stop that is true before the given 0-based step of a run that starts at 0."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= step


def stamp(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
