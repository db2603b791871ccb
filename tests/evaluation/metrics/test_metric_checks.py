"""The checks of metrics: ground truth and CLIP pass, and each check fails for a metric that needs it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from evaluation.check import sample_runs
from evaluation.metrics.base import Metric, Quantity, Score, finite
from evaluation.metrics.check import CHECKS, Subject
from evaluation.metrics.clip_score import ClipScore
from evaluation.metrics.ground_truth import GroundTruth
from trace_bench.system.errors import TraceBenchError


class Smallest(Metric):
    """One function and four attributes."""

    name, version, citation = "smallest", "1", "this test"
    quantities = (Quantity("smallest", "Smallest", "mean of the first picture", True),)

    def score(self, run):
        return Score({"smallest": finite(np.asarray(Image.open(run.rgb(0))).mean())})


class Unnamed(Smallest):
    citation = ""


class Undecided(Smallest):
    quantities = (Quantity("smallest", "Smallest", "mean", True, kind="median"),)


class Fileless(Smallest):
    def files(self, run):
        return []


class Elsewhere(Smallest):
    def files(self, run):
        return [run.folder / "nowhere.png"]


class ArraySettings(Smallest):
    def settings(self, run):
        return {"views": np.arange(3)}


class Silent(Smallest):
    def score(self, run):
        return Score({})


class Arrays(Smallest):
    def score(self, run):
        return Score({"smallest": 1.0}, rows=[{"view": np.int64(0)}])


class NaNWhereEmpty(Smallest):
    def score(self, run):
        white = np.asarray(Image.open(run.rgb(0))).min() == 255
        return Score({"smallest": float("nan") if white else 1.0})


class Random(Smallest):
    counter = itertools.count()

    def score(self, run):
        return Score({"smallest": next(self.counter)})


class Litters(Smallest):
    def score(self, run):
        (run.folder / "notes.txt").write_text("seen")
        return super().score(run)


def failed(metric, folder):
    subject = sample_runs(metric, folder)
    return {result.name: result.reason for check in CHECKS if not (result := check(subject)).ok}


@pytest.mark.parametrize("kind", ["ground_truth", "clip_score", "smallest"])
def test_the_metrics_pass(kind, tmp_path, clip_folder):
    made = {
        "ground_truth": lambda: GroundTruth(points=2000, azimuth_step_deg=90.0),
        "clip_score": lambda: ClipScore(
            {"small": {"model": f"local-dir:{clip_folder}", "captions": ["a red cube", "a duck"]}},
            {"tiny": "small"},
            device="cpu",
        ),
        "smallest": Smallest,
    }
    assert failed(made[kind](), tmp_path) == {}


CASES = [
    (Unnamed, "name, version, citation, quantities", "citation is ''"),
    (Undecided, "name, version, citation, quantities", "has kind 'median'"),
    (Fileless, "files, settings, weights", "files is empty"),
    (Elsewhere, "files, settings, weights", "nowhere.png is missing"),
    (ArraySettings, "files, settings, weights", "settings are no JSON"),
    (Silent, "score", "no value for the quantity smallest"),
    (Arrays, "score", "rows or details are no JSON"),
    (NaNWhereEmpty, "an empty asset", "smallest is nan: give None"),
    (Random, "one run, one score", "two scores of one run differ"),
    (Litters, "score file", "scoring changes the run folder"),
]


@pytest.mark.parametrize(("cls", "name", "says"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_broken_metric_fails(cls, name, says, tmp_path):
    assert says in failed(cls(), tmp_path)[name]


def test_every_check_has_a_metric_that_fails_it():
    assert {name for _, name, _ in CASES} == {check.name for check in CHECKS}


def test_defaults_are_all_pictures_and_all_that_is_configured(tmp_path):
    metric = Smallest()
    subject: Subject = sample_runs(metric, tmp_path)
    assert [path.name for path in metric.files(subject.run)] == [f"rgb_{i}.png" for i in range(4)]
    assert (metric.applies(subject.run), metric.weights(subject.run), metric.settings(subject.run)) == (
        True,
        "",
        {},
    )
    metric.configured = {"views": 3}
    assert metric.settings(subject.run) == {"views": 3}


def test_a_metric_that_applies_to_nothing_is_said_so(tmp_path):
    class Nothing(Smallest):
        def applies(self, run):
            return False

    with pytest.raises(TraceBenchError, match="'smallest' applies to no run that could be made here"):
        sample_runs(Nothing(), tmp_path)
