"""The status command summarises thousands of run folders quickly."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from opened_files import opened

from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.live import Live
from trace_bench.run_folder.manifest import Manifest, RunIdentity, read_manifest, write_manifest
from trace_bench.run_folder.states import SILENT_S
from trace_bench.sweeps import status, sweep_plan
from trace_bench.sweeps.board import spent
from trace_bench.sweeps.eta import Spent
from trace_bench.sweeps.run_states import Queue, Row, ask_slurm, rows_of, states
from trace_bench.sweeps.slurm import commands as slurm
from trace_bench.sweeps.status import Look, duration, main, report, runs_per_hour

METHODS = ("sds", "csd", "vsd", "sdi", "ism", "trace")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
IDENTITY = RunIdentity(
    "sds", "gaussians", "random", "tiny", "toy", "toy", "0", "a red cube", 7.5, 0, 100, 1, 64
)  # fmt: skip


def stamp(seconds):
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def write(root, index, status="done", method="sds", seconds=60.0, **more):
    """A run folder with only a manifest."""
    name = f"runs/{method}/gaussians/toy/{index}-a-prompt/cfg7.5-seed0-{index:08x}"
    folder = root / name
    folder.mkdir(parents=True)
    identity = dataclasses.replace(IDENTITY, method=method, prompt_id=str(index))
    manifest = Manifest(status, f"{index:064x}", identity, started=stamp(NOW - 1800), files=["a"], **more)
    manifest.seconds["total"] = seconds
    manifest.finished = stamp(NOW - 60) if status != "running" else None
    write_manifest(folder, manifest)
    return name


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch):
    monkeypatch.setattr(slurm, "is_here", lambda: False)


def test_what_a_finished_run_took():
    """In a lane it is the share of its process, as in the manifest; an init made elsewhere does not count."""
    share = {"load": 1.0, "distill": 10.0, "render": 3.0, "total": 15.0}
    init = {"seconds_elsewhere": 1.0}
    alone = Manifest("done", "0" * 64, IDENTITY, seconds=share, init=init)
    assert spent(alone) == Spent(1.0, 10.0, 3.0)
    assert spent(dataclasses.replace(alone, lanes=4)) == spent(alone)


def test_every_state(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "is_here", lambda: True)
    monkeypatch.setattr(slurm, "queued", lambda ids: {"7_1": "RUNNING", "7_2": "PENDING"})
    environment = {"slurm": {"job_id": "8", "array_job_id": "7", "array_task_id": "1"}}
    gone = {"slurm": {"job_id": "5"}}
    expected = {
        write(tmp_path, 0): "done",
        write(tmp_path, 1, "failed"): "failed",
        write(tmp_path, 2, "preempted"): "preempted",
        write(tmp_path, 3, "running", environment=environment): "running",
        write(tmp_path, 4, "running", environment=gone): "killed",
        write(tmp_path, 5, "running", environment=gone): "queued",
        write(tmp_path, 6): "unreadable",
        "runs/sds/gaussians/toy/7-a-prompt/cfg7.5-seed0-7": "queued",
        "runs/sds/gaussians/toy/8-a-prompt/cfg7.5-seed0-8": "missing",
        write(tmp_path, 9, "preempted", environment=environment): "queued",  # its job waits again
    }
    names = list(expected)
    (tmp_path / names[6] / "manifest.json").write_text('{"half')
    sweep_plan.write_plan(tmp_path, ["python", "-m", "trace_bench"], names)
    sweep_plan.write_jobs(tmp_path, names, {"7_1": names[3:4], "7_2": [names[5], names[7], names[9]]})
    rows, sweeps = rows_of(read_index(tmp_path)), sweep_plan.read_sweeps(tmp_path)
    assert states(tmp_path, rows, sweeps, ask_slurm(rows.values(), sweeps)) == expected


def test_a_silent_slurm_makes_its_runs_unknown_not_missing_or_killed(tmp_path, monkeypatch):
    def silent(ids):
        raise slurm.SlurmError("squeue failed: Unable to contact slurm controller.")

    monkeypatch.setattr(slurm, "is_here", lambda: True)
    monkeypatch.setattr(slurm, "queued", silent)
    job = {"slurm": {"job_id": "7"}}
    past = time.time() - 2 * SILENT_S
    at_work, planned = (
        write(tmp_path, 0, "running", environment=job),
        "runs/sds/gaussians/toy/1-a/cfg7.5-seed0-1",
    )
    left, done = "runs/sds/gaussians/toy/2-a/cfg7.5-seed0-2", write(tmp_path, 3)
    (tmp_path / at_work / ".claim").write_text(json.dumps({"pid": 1, "host": "a-node"}))
    os.utime(tmp_path / at_work / "manifest.json", (past, past))
    names = [at_work, planned, left, done]
    sweep_plan.write_plan(tmp_path, ["python", "-m", "trace_bench"], names)
    sweep_plan.write_jobs(tmp_path, names, {"7": [at_work, planned]})
    rows, sweeps = rows_of(read_index(tmp_path)), sweep_plan.read_sweeps(tmp_path)
    found = states(tmp_path, rows, sweeps, ask_slurm(rows.values(), sweeps))
    assert found == {at_work: "unknown", planned: "unknown", left: "missing", done: "done"}
    text, is_open = report(tmp_path, NOW)
    assert "Slurm did not answer, so the state of its jobs is unknown: squeue failed: Unable to" in text
    assert is_open


def test_without_slurm_a_living_process_or_a_recent_sign_tells(tmp_path):
    mine, other, silent, left = (write(tmp_path, i, "running") for i in range(4))
    rows = rows_of(read_index(tmp_path))

    def claim(name, pid, host):
        (tmp_path / name / ".claim").write_text(json.dumps({"pid": pid, "host": host}))

    claim(mine, os.getpid(), socket.gethostname())
    claim(other, 1, "another-machine")
    claim(silent, 1, "another-machine")
    past = time.time() - 2 * SILENT_S
    os.utime(tmp_path / silent / "manifest.json", (past, past))
    expected = {mine: "running", other: "running", silent: "killed", left: "killed"}
    assert states(tmp_path, rows, [], Queue(None)) == expected
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    claim(mine, dead.pid, socket.gethostname())
    assert states(tmp_path, rows, [], Queue(None))[mine] == "killed"


def test_the_text(tmp_path):
    names = [write(tmp_path, i, seconds=60.0 * (i + 1)) for i in range(3)]
    names.append(write(tmp_path, 3, "failed", method="trace"))
    error = {"type": "NonFiniteError", "message": "non-finite\nat step 4", "step": 4, "traceback": []}
    (tmp_path / names[3] / "error.json").write_text(json.dumps(error))
    names.append("runs/trace/gaussians/toy/9-a-prompt/cfg7.5-seed0-9")
    sweep_plan.write_plan(tmp_path, ["python", "-m", "trace_bench", "-m", "prompt=a b"], names)
    text, is_open = report(tmp_path, NOW)
    assert not is_open
    lines = text.splitlines()
    assert lines[0] == f"5 runs under {tmp_path}: 3 done, 1 failed, 1 missing"
    assert lines[1].endswith("python -m trace_bench -m 'prompt=a b'")
    table = [line.split() for line in lines[3:6]]
    assert table[0] == ["method", "representation", "done", "failed", "missing", "minutes", "per", "run"]
    assert table[1:] == [
        ["sds", "gaussians", "3", "-", "-", "2.00"],
        ["trace", "gaussians", "-", "1", "1", "-"],
    ]
    assert (
        "Throughput of the last hour: 6.0 runs per hour; 1 left but none in progress: run the command again"
        in text
    )
    assert text.index(f"3 min  {names[2]}") < text.index(f"2 min  {names[1]}")
    assert f"  {names[3]}\n    NonFiniteError: non-finite at step 4 (step 4)" in text


def test_throughput_and_what_is_left(tmp_path, monkeypatch):
    rows = [Row("done", started=NOW - 1800, finished=NOW - 10)] * 4
    rows += [Row("done", started=NOW - 90000, finished=NOW - 80000), Row("failed", finished=NOW - 5)]
    assert runs_per_hour(rows, NOW) == pytest.approx(8.0)
    assert runs_per_hour(rows[4:], NOW) is None
    names = [write(tmp_path, i) for i in range(2)]
    names.append(write(tmp_path, 2, "running", environment={"slurm": {"job_id": "3"}}))
    monkeypatch.setattr(slurm, "is_here", lambda: True)
    monkeypatch.setattr(slurm, "queued", lambda ids: {"3": "RUNNING"})
    text, is_open = report(tmp_path, NOW)
    assert is_open
    assert "4.0 runs per hour; 1 left, about 15 min" in text
    assert f"30 min  {names[2]}" in text


def test_what_is_remembered_follows_the_files(tmp_path):
    name = write(tmp_path, 0, "preempted")
    assert rows_of(read_index(tmp_path))[name].status == "preempted"
    manifest = read_manifest(tmp_path / name)
    manifest.status = "done"
    write_manifest(tmp_path / name, manifest)
    assert rows_of(read_index(tmp_path))[name].status == "done"
    (tmp_path / name / "manifest.json").unlink()
    assert rows_of(read_index(tmp_path)) == {}


def test_each_manifest_is_read_once_and_then_remembered(tmp_path):
    names = [write(tmp_path, i, "done" if i % 3 else "failed") for i in range(30)]
    sweep_plan.write_plan(tmp_path, ["python"], names)
    manifests = {f"{name}/manifest.json" for name in names}
    with opened(tmp_path) as first:
        text, _ = report(tmp_path, NOW)
    assert text.startswith("30 runs")
    assert {path: first[path] for path in manifests} == dict.fromkeys(manifests, 1)
    with opened(tmp_path) as second:
        assert report(tmp_path, NOW)[0] == text
    assert not manifests & set(second)
    assert not [path for path in second if path.startswith(tuple(names[i] for i in range(30) if i % 3))]


def test_the_command(tmp_path, capsys):
    write(tmp_path, 0)
    write(tmp_path, 1, "preempted")  # by Ctrl-C: nothing is going to continue it by itself
    assert main([f"output_root={tmp_path}"]) == 0
    assert "2 runs under" in capsys.readouterr().out
    assert main([f"output_root={tmp_path}", "--watch"]) == 0  # nothing runs, so it returns
    assert main(["output_root=none"]) == 2
    assert main(["root=x"]) == 2
    said = capsys.readouterr().err
    assert "The folder none does not exist" in said
    assert "Use output_root=FOLDER" in said


def at_work(root, index, live, pid=None):
    """A run folder on which a process of this machine is at work."""
    name = write(root, index, "running", method="vsd")
    claim = {"pid": pid or os.getpid(), "host": socket.gethostname()}
    (root / name / ".claim").write_text(json.dumps(claim))
    (root / name / ".live.json").write_text(json.dumps(dataclasses.asdict(live)))
    return name


def test_watching_shows_what_other_processes_do(tmp_path):
    """Two claimed folders, a finished run and one that waits: 10 s, 5 s and 20 s of steps are left."""
    done = write(tmp_path, 0, seconds=24.0)
    live = Live("distill", 20, 40, 2.0, "lora_loss", 0.5), Live("distill", 30, 40, 2.0)
    names = [at_work(tmp_path, i + 1, live[i], pid) for i, pid in enumerate((os.getpid(), os.getppid()))]
    waits = "runs/vsd/gaussians/toy/9-a-prompt/cfg7.5-seed0-9"
    costs = dict.fromkeys([done, *names, waits], 1.0)
    sweep_plan.write_plan(tmp_path, ["python", "-m", "trace_bench"], costs)
    view = Look.at(tmp_path).view()
    assert (view.total, view.done, view.failed) == (4, 1, 0)
    assert view.fraction == pytest.approx((1.0 + 0.5 + 0.75) / 4)
    assert [(asset.method, asset.prompt, asset.live) for asset in view.at_work] == [
        ("vsd", "a red cube", live[0]),
        ("vsd", "a red cube", live[1]),
    ]
    other = 24.0  # of the finished run, whose manifest has only the total
    assert view.left_s == pytest.approx(5.0 + other + 20.0 + other)
    for name in names:  # in two lanes of one process, each takes twice its share
        (tmp_path / name / ".claim").write_text(
            json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        )
    rest = (0.5 + 0.25 + 1.0) * 10.0  # 10 s of the process for each run's steps, as both do 2 steps/s
    assert Look.at(tmp_path).view().left_s == pytest.approx(rest + 3 * other)


def test_watching_ends_when_nothing_runs_any_more(tmp_path, monkeypatch, capsys):
    """The display names what ended, then the report comes."""
    names = [at_work(tmp_path, i, Live("render", 3, 8)) for i in range(2)]
    shown = []

    def a_second_later(seconds):
        shown.append(Look.at(tmp_path).view())
        name = names[len(shown) - 1]
        manifest = read_manifest(tmp_path / name)
        manifest.status = "done"
        write_manifest(tmp_path / name, manifest)
        (tmp_path / name / ".live.json").unlink()

    monkeypatch.setattr(status.time, "sleep", a_second_later)
    assert main([f"output_root={tmp_path}", "--watch", "1"]) == 0
    assert [len(view.at_work) for view in shown] == [2, 1]
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("Done: ")] == [
        f"Done: {name}" for name in names
    ]
    assert f"2 runs under {tmp_path}: 2 done" in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (600, "10 min"), (7199, "2 h 00 min"), (11100, "3 h 05 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_it_needs_neither_torch_nor_hydra():
    code = (
        "import sys, trace_bench.status; print([m for m in ('torch', 'hydra', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
