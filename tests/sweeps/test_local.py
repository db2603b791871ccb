"""Worker processes on this machine: what kills one of them is reported, and the others go on."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from trace_bench.run_folder.manifest import read_manifest
from trace_bench.runs.identity import RunSpec
from trace_bench.sweeps import local, sweep
from trace_bench.sweeps.interrupt import listening
from trace_bench.sweeps.local import make_in_workers, workers_of
from trace_bench.sweeps.planning import launcher_of, make_plan
from trace_bench.system.errors import TraceBenchError

CONF = str(Path(__file__).parents[1] / "conf")
QUICK = ["prior=analytic", "representation=image", "method=sds", "log_every=1", "checkpoint.every_steps=4"]


def plan(out, steps):
    runs = make_plan([*QUICK, f"steps={steps}", "prompt=0-2"], multirun=True, config_dir=CONF)
    return [
        RunSpec(dataclasses.replace(run.job, output_root=str(out)), run.prompt, run.prompt_set)
        for run in runs
    ]


@pytest.fixture
def killer(monkeypatch):
    """Sends a signal to the worker of a run, as soon as it is at work; or to this process."""

    def start(folder, signum, at_this_process=False):
        def watch():
            deadline = time.monotonic() + 120
            while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            os.kill(os.getpid() if at_this_process else made[folder].process.pid, signum)

        thread = threading.Thread(target=watch)
        thread.start()
        return thread

    made = {}

    class Watched(local._Worker):
        def start(self, run):
            made[run.folder] = self
            super().start(run)

    monkeypatch.setattr(local, "_Worker", Watched)
    return start


@pytest.mark.slow
def test_a_killed_worker_costs_its_run_only(tmp_path, killer):
    runs, ended = plan(tmp_path, 150), []
    thread = killer(runs[0].folder, signal.SIGKILL)
    with listening() as stop:
        make_in_workers(runs, 2, stop, ended.append)
    thread.join()
    (lost,) = [end for end in ended if end.status == "lost"]
    assert lost.folder == runs[0].folder
    assert "was killed by SIGKILL, perhaps because memory ran out" in lost.message
    assert sorted(end.folder for end in ended if end != lost) == sorted(run.folder for run in runs[1:])
    assert {end.status for end in ended if end != lost} == {"done"}
    assert (
        read_manifest(runs[0].folder).status == "running"
    )  # status says killed; the same command resumes it


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_signal_to_the_command_stops_the_workers_with_a_checkpoint(tmp_path, killer, lanes):
    runs, ended = plan(tmp_path, 100_000), []
    with listening() as stop:
        thread = killer(runs[lanes - 1].folder, signal.SIGINT, at_this_process=True)
        make_in_workers(runs, 1, stop, ended.append, lanes=lanes)
        thread.join()
    begun = [run.folder for run in runs[:lanes]]
    assert sorted((end.folder, end.status) for end in ended) == [(folder, "preempted") for folder in begun]
    assert all((folder / "checkpoint.pt").exists() for folder in begun)
    assert not runs[lanes].folder.exists()


@pytest.mark.slow
def test_a_lost_run_is_reported_and_makes_the_exit_code(tmp_path, monkeypatch, capsys):
    runs = []

    def lose(missing, workers, stop, ended, started, say, lanes):
        runs.extend(missing)
        started(missing[0].folder)
        ended(local.Ended(missing[0].folder, "lost", "its worker process 7 was killed by SIGKILL."))

    monkeypatch.setattr(sweep, "make_in_workers", lose)
    monkeypatch.setattr(sweep, "workers_of", lambda launcher: 2)
    command = [
        "--config-dir",
        CONF,
        "-m",
        *QUICK,
        "prompt=0,1",
        "hydra/launcher=local",
        f"output_root={tmp_path}",
    ]
    assert sweep.main(command) == sweep.EXIT_UNFINISHED
    said = capsys.readouterr().err
    assert f"Not finished: {runs[0].folder}\n  its worker process 7 was killed by SIGKILL." in said
    assert "Traceback" not in said


def test_workers_of_a_launcher():
    assert workers_of(launcher_of([])) == 0
    assert workers_of(launcher_of(["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"])) == 3
    assert workers_of(launcher_of(["hydra/launcher=local", "device=cpu"])) >= 1
    with pytest.raises(TraceBenchError, match="n_jobs must be a number of workers"):
        workers_of({"_target_": "x.JoblibLauncher", "n_jobs": 0})
    with pytest.raises(TraceBenchError, match="does not support the launcher"):
        workers_of({"_target_": "x.RayLauncher"})
