"""Real processes and signals: whatever stops a run, repeating the command gives the same asset."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trace_bench.run_folder.manifest import read_manifest
from trace_bench.runs.checkpoint import CHECKPOINT
from trace_bench.runs.identity import RunSpec
from trace_bench.runs.run import make_asset
from trace_bench.sweeps.interrupt import SIGNALS, StopRequest, listening
from trace_bench.sweeps.planning import make_plan
from trace_bench.sweeps.sweep import main

TESTS = Path(__file__).parents[1]
STEPS = 100
QUICK = [
    "prior=analytic",
    "representation=image",
    "method=trace",
    f"steps={STEPS}",
    "log_every=1",
    "checkpoint.every_steps=4",
]
FORK = multiprocessing.get_context("fork")
random_step = random.Random(0)


def arguments(out, *more):
    return ["--config-dir", str(TESTS / "conf"), *QUICK, f"output_root={out}", *more]


@functools.cache
def planned(*more):
    return make_plan([*QUICK, *more], "prompt=0,1,2" in more, str(TESTS / "conf"))


def plan(out, *more):
    """Plan the runs of a command; three prompts form a sweep."""
    return [
        RunSpec(dataclasses.replace(run.job, output_root=str(out)), run.prompt, run.prompt_set)
        for run in planned(*more)
    ]


def _command(argv):
    os.setpgrp()
    sys.argv = ["trace_bench"]
    os._exit(main(argv))


def start(out, *more):
    """The command in a forked process, to avoid importing everything again."""
    process = FORK.Process(target=_command, args=(arguments(out, *more),))
    process.start()
    return process


def wait_for_step(folder, step, seconds=120.0):
    """Wait until metrics.jsonl has the row of `step`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        path = folder / "metrics.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") > step:
            return
        time.sleep(0.002)
    pytest.fail(f"{folder} did not reach step {step}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The assets of an undisturbed sweep, by prompt id."""
    found = {}

    def of(prompt_id):
        if prompt_id not in found:
            (run,) = plan(tmp_path_factory.mktemp("whole"), f"prompt={prompt_id}")
            assert make_asset(run).status == "done"
            found[prompt_id] = (run.folder / "asset.safetensors").read_bytes()
        return found[prompt_id]

    return of


#: The first two; the others are slow tests.
STOPS = [signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGUSR2]


@pytest.mark.parametrize(
    "signum",
    [pytest.param(s, marks=[pytest.mark.slow] * (i > 1), id=f"{s.name}{i}") for i, s in enumerate(STOPS)],
)
def test_stopped_at_any_step_and_given_again(tmp_path, whole, signum):
    (run,) = plan(tmp_path)
    process = start(tmp_path)
    wait_for_step(run.folder, random_step.randrange(STEPS - 30))
    os.kill(process.pid, signum)
    process.join(120)
    manifest = read_manifest(run.folder)
    if signum == signal.SIGKILL:
        assert process.exitcode == -signal.SIGKILL
        assert manifest.status == "running"
    else:
        assert process.exitcode == 128 + signum
        assert manifest.status == "preempted"
        assert (run.folder / CHECKPOINT).exists()
    again = start(tmp_path)
    again.join(120)
    assert again.exitcode == 0
    assert (run.folder / "asset.safetensors").read_bytes() == whole(0)
    assert not (run.folder / CHECKPOINT).exists()


@pytest.mark.slow
def test_a_signal_ends_the_sweep_and_the_same_command_does_the_rest(tmp_path, whole):
    runs = plan(tmp_path, "prompt=0,1,2")
    process = start(tmp_path, "-m", "prompt=0,1,2")
    wait_for_step(runs[1].folder, random_step.randrange(STEPS - 30))
    os.kill(process.pid, signal.SIGTERM)
    process.join(120)
    assert process.exitcode == 128 + signal.SIGTERM
    assert read_manifest(runs[0].folder).status == "done"
    assert read_manifest(runs[1].folder).status == "preempted"
    assert not runs[2].folder.exists()
    finished = (runs[0].folder / "manifest.json").stat().st_mtime_ns
    again = start(tmp_path, "-m", "prompt=0,1,2")
    again.join(120)
    assert again.exitcode == 0
    assert [(run.folder / "asset.safetensors").read_bytes() for run in runs] == [whole(i) for i in range(3)]
    assert (runs[0].folder / "manifest.json").stat().st_mtime_ns == finished


@pytest.mark.slow
def test_two_sweeps_over_the_same_runs_share_the_work(tmp_path, whole):
    runs = plan(tmp_path, "prompt=0,1,2")
    both = [start(tmp_path, "-m", "prompt=0,1,2"), start(tmp_path, "-m", "prompt=2,1,0")]
    for process in both:
        process.join(120)
        assert process.exitcode in (0, 75)  # 75: what the other was still at
    assert [(run.folder / "asset.safetensors").read_bytes() for run in runs] == [whole(i) for i in range(3)]
    assert all(read_manifest(run.folder).attempts == 1 for run in runs)


def test_ctrl_c_twice_stops_at_once_and_loses_nothing(tmp_path, whole):
    (run,) = plan(tmp_path)
    process = start(tmp_path)
    wait_for_step(run.folder, 40)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGINT)
    process.join(120)
    assert process.exitcode != 0
    again = start(tmp_path)
    again.join(120)
    assert again.exitcode == 0
    assert (run.folder / "asset.safetensors").read_bytes() == whole(0)


def typed(folder, *more):
    """The command as typed by a user, in a new interpreter."""
    command = [sys.executable, "-m", "trace_bench", *arguments(folder / "out", *more)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_ctrl_c_in_a_shell(tmp_path, whole):
    (run,) = plan(tmp_path / "out")
    with typed(tmp_path) as process:
        wait_for_step(run.folder, 20)
        process.send_signal(signal.SIGINT)
        said, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in error + said
    *_, stopped, begun, again = error.splitlines()
    assert stopped.startswith("Stopped: 0 of 1 assets are done, 0 failed")
    assert begun == "1 interrupted, with checkpoints; 0 not started."
    assert again.startswith("The same command continues: python -m trace_bench ")
    assert make_asset(run).status == "done"
    assert (run.folder / "asset.safetensors").read_bytes() == whole(0)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.slow
def test_a_signal_to_the_command_reaches_its_workers(tmp_path):
    """One worker per core; `kill` reaches only the first process."""
    steps = "steps=5000"
    runs = plan(tmp_path / "out", "prompt=0,1,2", steps)
    with typed(tmp_path, "-m", "prompt=0,1,2", steps, "hydra/launcher=local") as process:
        wait_for_step(runs[0].folder, 20)
        process.send_signal(signal.SIGTERM)
        said, error = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in error + said
    assert "Stopped: 0 of 3 assets are done" in error
    assert "The same command continues: python -m trace_bench " in error
    assert read_manifest(runs[0].folder).status == "preempted"
    assert (runs[0].folder / CHECKPOINT).exists()


def test_handlers_are_put_back():
    before = [signal.getsignal(signum) for signum in SIGNALS]
    with listening() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop()
        assert stop.exit_code == 128 + signal.SIGUSR2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGUSR2)
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


def test_outside_the_main_thread_nothing_is_caught():
    import threading

    seen = []

    def work():
        with listening() as stop:
            seen.append((isinstance(stop, StopRequest), stop()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, False)]
