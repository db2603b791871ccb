"""Each benchmark finishes and prints a ratio or a time for everything it compares."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
#: Too long for each CI: sweeps, processes of their own, networks of SD 2.1's size.
MINUTES = {"start", "dispatches", "make_bench", "step", "lanes", "sweep"}
SHORT = {
    "step": (["prior=tiny", "--steps", "2"], ["sds", "vsd", "trace"]),
    "nerf": (
        ["--repeats", "1", "--resolution", "16"],
        ["as it is", "with normals", "no skipping", "plain torch"],
    ),
    "rasteriser": (["--repeats", "1", "--gaussians", "200"], ["splat_cpu", "plain torch"]),
    "collect": (["--prompts", "2", "--seeds", "1"], ["collect", "all tables"]),
    "reading": (["--runs", "36", "--against", "HEAD"], ["collect, first", "collect, again", "status"]),
    "start": (
        ["--short", "--repeats", "1", "--against", "HEAD"],
        ["one SDS asset", "planning 330 runs", "sweep of 330 until its workers"],
    ),
    "lanes": (
        ["--steps", "2", "--runs", "2", "--lanes", "2", "--methods", "sds,vsd"],
        ["sds", "vsd", "mixed"],
    ),
    "plain_sds": (["--steps", "4", "--at-once", "2"], ["plain script", "ours", "ratio"]),
    "sweep": (
        ["--short", "--workers", "1", "--prompts", "2"],
        ["1 worker, lanes as by default, seconds", "1 worker, lanes=1, CPU seconds"],
    ),
    "make_bench": (["--short"], ["sweep, seconds", "evaluation, CPU seconds", "all stages, seconds"]),
    "elo": ([], ["ours", "Adam", "ratio"]),
    "dispatches": (["sds"], ["sds"]),
}


LONG = {"full_size"}  # tests/priors/test_full_size.py
GPU = {"gpu", "gpu_checks", "on_meta"}  # test_gpu_benchmark.py, tests/test_device_steps.py


def test_all_are_here():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert modules - {"against", "arguments"} == set(SHORT) | LONG | GPU


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", [*SHORT, *LONG, "gpu"])
def test_a_benchmark_explains_itself(name, monkeypatch, capsys):
    """At once: nothing is measured."""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    assert not ended.value.code
    assert f"python -m benchmarks.{name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in MINUTES else name for name in SHORT]
)
def test_a_benchmark_runs_to_its_end(name):
    arguments, compared = SHORT[name]
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for what in compared:
        assert re.search(rf"^ *{re.escape(what)}\b.*\d", done.stdout, re.MULTILINE), done.stdout
