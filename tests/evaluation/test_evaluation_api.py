"""Scores and results as a frame."""

from __future__ import annotations

import pytest

import evaluation
from trace_bench.system.errors import TraceBenchError


def test_an_output_root_has_to_exist(tmp_path):
    for function in (evaluation.score_runs, evaluation.read_results):
        with pytest.raises(TraceBenchError, match="does not exist"):
            function(tmp_path / "nowhere")


def test_metrics_have_to_exist(tmp_path):
    with pytest.raises(TraceBenchError, match="the metrics are aesthetic, clip_r_precision, clip_score"):
        evaluation.score_runs(tmp_path, metrics=["nope"])


def test_a_folder_without_runs_is_an_empty_frame(tmp_path):
    assert evaluation.read_results(tmp_path).empty


def test_only_what_is_public_is_there():
    with pytest.raises(AttributeError, match="no attribute 'score_run'"):
        evaluation.score_run  # noqa: B018
