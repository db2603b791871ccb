"""When a score file is reused and when it is recomputed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from run_folders import draw, only_run, write_run

from evaluation.metrics.base import Metric, Quantity, Score, score_path, score_run
from trace_bench.run_folder.manifest import write_manifest
from trace_bench.run_folder.reading import Run


class Counting(Metric):
    """Counts its calls."""

    name, citation, version = "counting", "none", "1"
    quantities = (Quantity("calls", "Calls", "how often it was asked", True),)

    def __init__(self) -> None:
        self.calls, self.judge, self.scale = 0, "a", 1.0

    def applies(self, run):
        return True

    def files(self, run):
        return [run.rgb(0), run.rgb(1)]

    def weights(self, run):
        return self.judge

    def settings(self, run):
        return {"scale": self.scale}

    def score(self, run):
        self.calls += 1
        return Score({"calls": self.calls}, rows=[{"view": 0}])


@pytest.fixture
def run(tmp_path) -> Run:
    draw(write_run(tmp_path), "a red cube", views=3)
    return only_run(tmp_path)


def test_an_unchanged_run_is_scored_once(run):
    metric = Counting()
    assert score_run(metric, run)
    before = score_path(run, "counting").read_bytes()
    assert not score_run(metric, run)
    assert metric.calls == 1
    assert score_path(run, "counting").read_bytes() == before
    assert [path.name for path in (run.folder / "scores").iterdir()] == ["counting.json"]


@pytest.mark.parametrize(
    "change", ["version", "weights", "settings", "prompt", "image", "force", "broken file", "changed digit"]
)
def test_whatever_a_score_depends_on_makes_it_new(run, change, monkeypatch):
    metric, force = Counting(), change == "force"
    score_run(metric, run)
    if change == "version":
        monkeypatch.setattr(Counting, "version", "2")
    elif change == "weights":
        metric.judge = "b"
    elif change == "settings":
        metric.scale = 2.0
    elif change == "prompt":
        run = Run(run.folder, replace(run.manifest, run=replace(run.identity, prompt="a blue cube")))
    elif change == "image":
        run.rgb(0).write_bytes(run.rgb(2).read_bytes())
    elif change == "broken file":
        score_path(run, "counting").write_text('{"schema_version": 1, "inputs"')
    elif change == "changed digit":
        text = score_path(run, "counting").read_text()
        score_path(run, "counting").write_text(text.replace('"calls": 1', '"calls": 9'))
    assert score_run(metric, run, force)
    assert json.loads(score_path(run, "counting").read_text())["values"] == {"calls": 2}
    assert not score_run(metric, run)


def test_a_picture_that_is_not_scored_changes_nothing(run):
    metric = Counting()
    score_run(metric, run)
    run.rgb(2).write_bytes(run.rgb(1).read_bytes())
    assert not score_run(metric, run)


def test_the_same_pictures_made_again_keep_their_score(run, tmp_path):
    metric = Counting()
    score_run(metric, run)
    write_manifest(run.folder, replace(run.manifest, finished="2026-02-02T00:00:00+00:00"))
    assert not score_run(metric, only_run(tmp_path))
    assert metric.calls == 1
    content = json.loads(score_path(run, "counting").read_text())
    assert content["run"]["finished"] == "2026-02-02T00:00:00+00:00"


def test_a_score_file_says_what_it_is(run):
    score_run(Counting(), run)
    content = json.loads(score_path(run, "counting").read_text())
    assert content["higher_is_better"] == {"calls": True}
    assert content["citation"] == "none"
    assert set(content["inputs"]) == {"images", "prompt", "version", "weights", "settings"}


def test_infinity_never_reaches_a_score_file(run, monkeypatch):
    monkeypatch.setattr(Counting, "score", lambda self, run: Score({"calls": float("inf")}))
    with pytest.raises(ValueError, match="JSON"):
        score_run(Counting(), run)
    assert not score_path(run, "counting").exists()
