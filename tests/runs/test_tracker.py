"""Trackers get the records of a run, each once, and never fail it."""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from quick_runs import SMALL_3D, STEPS, folders, spec, stop_at

from evaluation.metrics.base import Metric, Quantity, Score, score_run
from trace_bench.run_folder import tracking
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import read_manifest
from trace_bench.run_folder.tracking import SENT, check_tracker, wandb_mode
from trace_bench.runs.run import make_asset
from trace_bench.system.errors import TraceBenchError


class Sink:
    """Remembers what it got."""

    def __init__(self, folder, manifest, sent_before):
        self.sent_before = sent_before
        self.got, self.pictures, self.closed = [], [], 0
        made.append(self)

    def scalars(self, step, values):
        self.got.append((step, dict(values)))

    def picture(self, step, name, rgb):
        self.pictures.append((step, name, rgb.shape, rgb.dtype))

    def close(self):
        self.closed += 1


made: list[Sink] = []


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    made.clear()
    monkeypatch.setitem(tracking._SINKS, "tensorboard", Sink)
    monkeypatch.setattr(tracking, "_EVERY_S", -1.0)
    monkeypatch.setattr(tracking, "_paused_until", {})


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_same_records_and_pictures_at_the_snapshots(out):
    run = spec(out, *SMALL_3D, "tracker=tensorboard", "snapshots.steps=[2,5]")
    assert make_asset(run).status == "done"
    (sink,) = made
    found = rows(run.folder)
    assert sink.got == [(row.pop("step"), row) for row in found]
    pictures = [(step, name) for step, name, _, _ in sink.pictures]
    assert pictures == [(2, "render"), (5, "render"), (STEPS, "preview")]
    assert all(len(shape) == 3 and shape[2] == 3 and kind == np.uint8 for _, _, shape, kind in sink.pictures)
    assert sink.closed == 1


@pytest.mark.parametrize("stop", [5, 7, 10])
def test_a_resumed_run_repeats_no_step(out, stop):
    run = spec(out, "tracker=tensorboard")
    assert make_asset(run, stop_at(stop)).status == "preempted"
    assert make_asset(run).status == "done"
    assert [step for sink in made for step, _ in sink.got] == [row["step"] for row in rows(run.folder)]


def test_a_run_that_starts_over_repeats_no_step(out):
    """Its checkpoint is gone: metrics.jsonl has its rows again, the tracker does not."""
    run = spec(out, "tracker=tensorboard")
    assert make_asset(run, stop_at(7)).status == "preempted"
    (run.folder / "checkpoint.pt").unlink()
    assert make_asset(run).status == "done"
    assert [step for sink in made for step, _ in sink.got] == [2, 5, 8, 11]


def test_force_makes_it_again_from_the_first_step(out):
    assert make_asset(spec(out, "tracker=tensorboard")).status == "done"
    assert make_asset(spec(out, "tracker=tensorboard", "force=true")).status == "done"
    assert [step for step, _ in made[1].got] == [step for step, _ in made[0].got]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["__init__", "scalars", "picture", "close"])
def test_a_tracker_that_fails_costs_a_warning(out, monkeypatch, caplog, where):
    def fail(*arguments):
        raise RuntimeError("no route to\nhost")

    monkeypatch.setattr(Sink, where, fail)
    run = spec(out, *SMALL_3D, "tracker=tensorboard")
    assert make_asset(run).status == "done"
    said = [record.getMessage() for record in caplog.records if "tracker=" in record.getMessage()]
    assert said == [
        "tracker=tensorboard failed (RuntimeError: no route to host); the run goes on without it."
    ]


class Ours(Metric):
    name, version, citation = "ours", "1", ""
    quantities = (Quantity("a", "A", True), Quantity("b", "B", True))

    def files(self, run):
        return []

    def score(self, run):
        return Score({"a": 0.5, "b": None})


class Theirs(Ours):
    name = "theirs"


def test_scores_reach_the_tracker_of_the_run(out):
    assert make_asset(spec(out, "tracker=tensorboard")).status == "done"
    assert make_asset(spec(out, "seed=1")).status == "done"
    made.clear()
    for run in read_index(out).runs.values():
        assert score_run(Ours(), run)
    (sink,) = made
    assert sink.got == [(STEPS, {"ours/a": 0.5})]
    assert sink.closed == 1


def test_scoring_tries_a_tracker_that_cannot_be_opened_once(out, monkeypatch, caplog):
    for seed in range(2):
        assert make_asset(spec(out, "tracker=tensorboard", f"seed={seed}")).status == "done"
    tries = []

    def fail(*arguments):
        tries.append(arguments)
        raise RuntimeError("no route to host")

    monkeypatch.setitem(tracking._SINKS, "tensorboard", fail)
    caplog.clear()
    runs = read_index(out).runs.values()
    for run in runs:
        assert score_run(Ours(), run)
    assert len(tries) == 1
    assert "tracker=tensorboard failed (RuntimeError: no route to host)" in caplog.text
    monkeypatch.setitem(tracking._SINKS, "tensorboard", Sink)
    monkeypatch.setitem(tracking._paused_until, "tensorboard", 0.0)
    made.clear()
    for run in runs:
        assert score_run(Theirs(), run)
    assert [sink.got for sink in made] == [[(STEPS, {"theirs/a": 0.5})]] * 2


def test_records_are_numbered_on_from_those_of_earlier_attempts(out):
    """wandb drops a record with the number of an earlier one."""
    run = spec(out, *SMALL_3D, "tracker=tensorboard", "snapshots.steps=[2]")
    assert make_asset(run, stop_at(7)).status == "preempted"
    assert make_asset(run).status == "done"
    (found,) = read_index(out).runs.values()
    assert score_run(Ours(), found)
    assert score_run(Theirs(), found)
    counts = [len(sink.got) + len(sink.pictures) for sink in made]
    assert len(counts) == 4
    assert [sink.sent_before for sink in made] == [sum(counts[:i]) for i in range(4)]


def test_nothing_without_a_tracker(out):
    run = spec(out)
    assert make_asset(run).status == "done"
    assert not made
    assert not (run.folder / SENT).exists()


def test_the_tracker_is_no_part_of_a_run(out):
    assert spec(out).fingerprint == spec(out, "tracker=wandb").fingerprint


def test_a_missing_package_is_said_before_the_first_run(command, out, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert command("tracker=wandb") == 2
    assert (
        "tracker=wandb needs the package wandb: pip install 'trace-bench[wandb]'" in capsys.readouterr().err
    )
    assert not folders(out)
    with pytest.raises(TraceBenchError, match="pip install"):
        check_tracker("tensorboard")
    check_tracker("none")


def test_offline_on_slurm_unless_asked(monkeypatch):
    for name in ("WANDB_MODE", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert wandb_mode() == "online"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert wandb_mode() == "online"


def with_an_interruption(out, kind):
    """A run with this tracker that was interrupted, resumed and scored twice."""
    run = spec(out, *SMALL_3D, f"tracker={kind}", "snapshots.steps=[2,9]")
    assert make_asset(run, stop_at(7)).status == "preempted"
    assert make_asset(run).status == "done"
    (found,) = read_index(out).runs.values()
    assert score_run(Ours(), found)
    assert score_run(Theirs(), found)
    assert read_manifest(run.folder).status == "done"
    return run.folder


def test_real_event_files(out, monkeypatch):
    """What TensorBoard's own reader finds."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setitem(tracking._SINKS, "tensorboard", tracking._TensorBoard)
    folder = with_an_interruption(out, "tensorboard")
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    found = events.Scalars("grad_rms")
    assert [event.step for event in found] == [row["step"] for row in rows(folder)]
    assert [event.value for event in found] == pytest.approx([row["grad_rms"] for row in rows(folder)])
    assert [event.step for event in events.Images("render")] == [2, 9]
    (preview,) = events.Images("preview")
    assert preview.step == STEPS
    with (
        Image.open(folder / "preview.png") as ours,
        Image.open(BytesIO(preview.encoded_image_string)) as sent,
    ):
        assert (np.asarray(ours.convert("RGB")) == np.asarray(sent)).all()
    for metric in ("ours", "theirs"):
        assert [(event.step, event.value) for event in events.Scalars(f"{metric}/a")] == [(STEPS, 0.5)]
    assert not [tag for tag in events.Tags()["scalars"] if tag.endswith("/b")]


def inspected(folder):
    """The records of an offline run of wandb, as its own reader prints them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=folder, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_real_offline_run_of_wandb(out, monkeypatch):
    """Each attempt has a folder; `wandb sync` sends those of one run in the order of their start."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = with_an_interruption(out, "wandb")
    attempts = [inspected(path) for path in (folder / "wandb").glob("offline-run-*")]
    started = [next(record["run"] for record in records if record["type"] == "run") for records in attempts]
    assert len(attempts) == 4
    assert len({run["run_id"] for run in started}) == 1
    assert all(run["resume"] for run in started)
    in_order = sorted(
        zip([run["start_time"] for run in started], attempts, strict=True), key=lambda it: it[0]
    )
    history = [
        record["history"]["item"]
        for _, records in in_order
        for record in records
        if record["type"] == "history"
    ]
    assert [item["_step"] for item in history] == list(range(len(history)))
    found = [item for item in history if "grad_rms" in item]
    assert [item["step"] for item in found] == [row["step"] for row in rows(folder)]
    assert [item["grad_rms"] for item in found] == [row["grad_rms"] for row in rows(folder)]
    pictures = {name: [item for item in history if f"{name}.path" in item] for name in ("render", "preview")}
    assert [item["step"] for item in pictures["render"]] == [2, 9]
    assert [item["step"] for item in pictures["preview"]] == [STEPS]
    for item in [*pictures["render"], *pictures["preview"]]:
        path = next(value for name, value in item.items() if name.endswith(".path"))
        assert list((folder / "wandb").glob(f"offline-run-*/files/{path}")), path
    scores = [(item["step"], item.get("ours/a"), item.get("theirs/a")) for item in history[-2:]]
    assert scores == [(STEPS, 0.5, None), (STEPS, None, 0.5)]
