"""Trackers get the records of a run, each once, and never fail it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from quick_runs import SMALL_3D, STEPS, folders, spec, stop_at

from evaluation.metrics.base import score_run
from trace_bench.run_folder import tracking
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import read_manifest
from trace_bench.run_folder.tracking import SENT, check_tracker, wandb_mode
from trace_bench.runs.run import make_asset
from trace_bench.system.errors import TraceBenchError


class Sink:
    """Remembers what it got."""

    def __init__(self, folder, manifest):
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


def test_scores_reach_the_tracker_of_the_run(out):
    from evaluation.metrics.base import Metric, Quantity, Score

    class Ours(Metric):
        name, version, citation = "ours", "1", ""
        quantities = (Quantity("a", "A", True), Quantity("b", "B", True))

        def files(self, run):
            return []

        def score(self, run):
            return Score({"a": 0.5, "b": None})

    assert make_asset(spec(out, "tracker=tensorboard")).status == "done"
    assert make_asset(spec(out, "seed=1")).status == "done"
    made.clear()
    for run in read_index(out).runs.values():
        assert score_run(Ours(), run)
    (sink,) = made
    assert sink.got == [(STEPS, {"ours/a": 0.5})]
    assert sink.closed == 1


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


def test_real_event_files(out, monkeypatch):
    """What TensorBoard's own reader finds after a stop and a resume."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setitem(tracking._SINKS, "tensorboard", tracking._TensorBoard)
    run = spec(out, *SMALL_3D, "tracker=tensorboard", "snapshots.steps=[2]")
    assert make_asset(run, stop_at(7)).status == "preempted"
    assert make_asset(run).status == "done"
    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    found = events.Scalars("grad_rms")
    assert [event.step for event in found] == [row["step"] for row in rows(run.folder)]
    assert [event.value for event in found] == pytest.approx([row["grad_rms"] for row in rows(run.folder)])
    assert [event.step for event in events.Images("render")] == [2]
    assert [event.step for event in events.Images("preview")] == [STEPS]
    assert read_manifest(run.folder).status == "done"


@pytest.mark.slow
def test_a_real_offline_run_of_wandb(out, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = spec(out, *SMALL_3D, "tracker=wandb")
    assert make_asset(run, stop_at(7)).status == "preempted"
    assert make_asset(run).status == "done"
    assert json.loads((run.folder / SENT).read_text())["row"] == STEPS - 1
    ids = {path.name.rpartition("-")[2] for path in (run.folder / "wandb").glob("offline-run-*")}
    assert len(ids) == 1
