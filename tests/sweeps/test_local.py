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
from trace_bench.runs.lanes import make_in_lanes
from trace_bench.sweeps import local, sweep
from trace_bench.sweeps.interrupt import listening
from trace_bench.sweeps.local import lanes_of, make_in_workers, workers_of
from trace_bench.sweeps.planning import Fixed, launcher_of, make_plan
from trace_bench.system.errors import TraceBenchError

CONF = str(Path(__file__).parents[1] / "conf")
QUICK = ["prior=analytic", "representation=image", "method=sds", "log_every=1", "checkpoint.every_steps=4"]


def plan(out, steps, prompts="0-2"):
    runs = make_plan([*QUICK, f"steps={steps}", f"prompt={prompts}"], multirun=True, config_dir=CONF)
    return [
        RunSpec(dataclasses.replace(run.job, output_root=str(out)), run.prompt, run.prompt_set)
        for run in runs
    ]


@pytest.fixture
def killer(monkeypatch):
    """Sends a signal to the worker of a run, as soon as it is at work or as asked; or to this process."""

    def start(folder, signum, at_this_process=False, when=None):
        is_time = when or (folder / "metrics.jsonl").exists

        def watch():
            deadline = time.monotonic() + 600
            while not is_time() and time.monotonic() < deadline:
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
def test_a_killed_worker_with_lanes_loses_no_finished_run(tmp_path, killer):
    """Two runs are lost, one is finished. The lost ones go on from their checkpoints, to the same bits."""
    (short,), lost = plan(tmp_path, 4, "0"), plan(tmp_path, 1000, "1,2")
    runs, ended = [short, *lost], []

    def is_time():
        checkpoints = [run.folder / "checkpoint.pt" for run in lost]
        return bool(ended) and all(path.exists() for path in checkpoints)

    thread = killer(short.folder, signal.SIGKILL, when=is_time)
    with listening() as stop:
        make_in_workers(runs, 1, stop, ended.append, lanes=3)
    thread.join()
    wanted = [(short.folder, "done"), *((run.folder, "lost") for run in lost)]
    assert sorted((end.folder, end.status) for end in ended) == sorted(wanted)
    before = (short.folder / "manifest.json").stat().st_mtime_ns
    again = {outcome.folder: outcome.status for outcome in make_in_lanes(runs, 3, lambda: False)}
    assert again == {short.folder: "skipped"} | {run.folder: "done" for run in lost}
    assert (short.folder / "manifest.json").stat().st_mtime_ns == before
    others = plan(tmp_path / "never killed", 1000, "1,2")
    assert len(list(make_in_lanes(others, 2, lambda: False))) == 2
    for run, other in zip(lost, others, strict=True):
        assert "Resuming at step" in (run.folder / "log.txt").read_text()
        name = "asset.safetensors"
        assert (run.folder / name).read_bytes() == (other.folder / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_signal_to_a_worker_costs_its_runs_only(tmp_path, killer, lanes):
    """Another worker takes its place."""
    long, short = plan(tmp_path, 100_000, ",".join(map(str, range(lanes)))), plan(tmp_path / "b", 4, "0-4")
    ended = []
    thread = killer(long[0].folder, signal.SIGTERM)
    with listening() as stop:
        make_in_workers([*long, *short], 1, stop, ended.append, lanes=lanes)
    thread.join()
    assert {end.folder for end in ended if end.status == "preempted"} == {run.folder for run in long}
    assert {end.folder for end in ended if end.status == "done"} == {run.folder for run in short}
    assert len(ended) == len(long) + len(short)


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


def test_lanes_are_as_asked_for_or_by_launcher_and_device(monkeypatch):
    (run,) = plan("out", 4, "0")
    local_launcher = launcher_of(Fixed(["hydra/launcher=local"]))
    assert lanes_of(run.job, local_launcher) == 14
    assert lanes_of(run.job, launcher_of(Fixed([]))) == 1
    assert lanes_of(run.job, {}) == 1
    assert lanes_of(dataclasses.replace(run.job, lanes=3), {}) == 3
    monkeypatch.setattr(local, "uses_gpu", lambda device: device == "cuda")
    assert lanes_of(dataclasses.replace(run.job, device="cuda"), local_launcher) == 1
    assert lanes_of(run.job, local_launcher) == 14


def test_the_worker_that_is_free_first_leaves_the_other_its_share():
    """Two workers of seven lanes: one ends its first seven runs a moment before the other."""
    shares = local._Shares(range(24), 2)
    assert shares.taken(0, 7, is_idle=True) == [0, 2, 4, 6, 8, 10, 12]
    assert shares.taken(1, 7, is_idle=True) == [1, 3, 5, 7, 9, 11, 13]
    assert shares.taken(0, 1, is_idle=False) == [14]
    assert shares.taken(0, 6, is_idle=False) == [16, 18, 20, 22]
    assert shares.taken(0, 2, is_idle=False) == []
    assert shares.taken(1, 7, is_idle=True) == [15, 17, 19, 21, 23]
    assert shares.left == 0


def test_a_worker_that_has_nothing_to_do_takes_half_of_the_longest_share():
    shares = local._Shares(range(21), 3)
    assert shares.taken(0, 7, is_idle=True) == [0, 3, 6, 9, 12, 15, 18]
    assert shares.taken(1, 1, is_idle=True) == [1]
    assert shares.taken(0, 1, is_idle=True) == [2]  # of 2, 5, 8, 11, 14, 17, 20
    assert shares.taken(0, 9, is_idle=False) == [8, 14, 20]
    assert shares.taken(2, 9, is_idle=True) == [5, 11, 17]
    assert shares.taken(1, 9, is_idle=False) == [4, 7, 10, 13, 16, 19]
    assert shares.taken(2, 9, is_idle=True) == []


def test_one_worker_can_take_all_runs_and_each_once():
    shares, made = local._Shares(range(30), 4), []
    while shares.left:
        made += shares.taken(3, 1, is_idle=True)
    assert sorted(made) == list(range(30))
    assert local._Shares([], 0).left == 0


def test_in_lanes_the_longest_runs_come_first(tmp_path, monkeypatch):
    handed_over = []
    monkeypatch.setattr(
        sweep, "make_in_turn", lambda runs, *_, lanes: handed_over.append([run.job.steps for run in runs])
    )
    sized = ["prior=tiny", "protocol=toy", "method=sds", "steps=4,9,6", "prompt=0"]
    command = ["--config-dir", CONF, "-m", *sized, f"output_root={tmp_path}"]
    for lanes in (1, 2):
        sweep.main([*command, f"lanes={lanes}"])
    assert handed_over == [[4, 9, 6], [9, 6, 4]]


def test_workers_of_a_launcher():
    assert workers_of(launcher_of(Fixed([]))) == 0
    assert workers_of(launcher_of(Fixed(["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"]))) == 3
    assert workers_of(launcher_of(Fixed(["hydra/launcher=local", "device=cpu"]))) >= 1
    with pytest.raises(TraceBenchError, match="n_jobs must be a number of workers"):
        workers_of({"_target_": "x.JoblibLauncher", "n_jobs": 0})
    with pytest.raises(TraceBenchError, match="does not support the launcher"):
        workers_of({"_target_": "x.RayLauncher"})
