"""Truths are rendered and converted once per prompt, and shortcuts change no number."""

from __future__ import annotations

import numpy as np
import pytest
from run_folders import draw, only_run, write_run
from skimage.color import rgb2lab

from evaluation.metrics.geometry import thin
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.metrics.truth import Truth
from evaluation.metrics.turn import best_turn, soft_iou, turned

POSES = [(15.0, 30.0 * i, 2.65, 42.5) for i in range(12)]


@pytest.mark.slow
def test_another_asset_of_a_prompt_renders_only_its_own_turn(tmp_path, monkeypatch):
    draw(write_run(tmp_path), "a duck", turn=33.0, resolution=128)
    (folder,) = tmp_path.glob("runs/*/*/*/*/*")
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"a red cube"', '"a duck"'))
    seen = []
    real = Truth._see
    monkeypatch.setattr(Truth, "_see", lambda self, camera: seen.append(1) or real(self, camera))
    metric, run = GroundTruth(), only_run(tmp_path)
    first = metric.score(run).values
    del seen[:]
    assert metric.score(run).values == first
    assert not seen
    draw(folder, "a duck", turn=71.0, resolution=128)
    metric.score(only_run(tmp_path))
    assert 0 < len(seen) <= 12 + 3 * 4  # at full resolution; three refined turns from four views


def test_silhouettes_and_colours_are_those_of_the_views():
    truth = Truth("a duck", 32)
    views = truth.views(POSES)
    alphas, place = truth.alphas([*POSES, POSES[0]])
    assert len(alphas) == 12
    assert np.array_equal(alphas[place[:-1]], views.alpha)
    assert place[-1] == place[0]
    assert np.abs(truth.lab(POSES) - rgb2lab(views.rgb)).max() < 1e-4


def test_the_least_cost_on_the_grid_is_found_as_turn_by_turn():
    truth = Truth("a duck", 32)
    asset = truth.views(turned(POSES, 40.0))
    fit = best_turn(asset, truth, POSES, 5.0)
    assert abs(fit.turn - 40.0) < 0.2
    assert fit.iou_unturned == soft_iou(asset.alpha, truth.views(POSES).alpha).mean()


def test_colours_are_forgotten_with_their_views(monkeypatch):
    monkeypatch.setattr("evaluation.metrics.truth._CACHED_BYTES", 200_000)
    truth = Truth("a duck", 32)
    for turn in range(5):
        truth.lab(turned(POSES, 7.0 * turn))
    assert set(truth._labs) <= set(truth._views)
    assert len(truth._views) <= 6


def test_thinning_is_the_mean_of_each_cell():
    points = np.random.default_rng(0).normal(size=(500, 3))
    cells = np.floor(points / 0.5).astype(int)
    expected = np.array(
        [points[(cells == cell).all(axis=1)].mean(axis=0) for cell in np.unique(cells, axis=0)]
    )
    assert np.allclose(thin(points, 0.5), expected, atol=1e-12)
