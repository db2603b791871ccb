"""The Janus number of true objects, and of objects with two faces or none."""

from __future__ import annotations

import numpy as np
import pytest
from run_folders import draw, only_run, save_renders, write_cameras, write_run

from evaluation.metrics.ground_truth import GroundTruth
from evaluation.metrics.janus import janus
from evaluation.metrics.truth import truth
from trace_bench.cameras import EvaluationRig

POSES = [(15.0, 15.0 * i, 2.65, 42.5) for i in range(24)]
FRONT = np.array([abs((15 * i + 180) % 360 - 180) < 90 for i in range(24)])


@pytest.fixture(scope="module", params=["a penguin", "a red house", "a blue chair"])
def true(request):
    return truth(request.param, 64)


def test_the_true_object_has_none_whichever_way_it_faces(true):
    views = true.views(POSES).rgb
    for pictures in (views, np.roll(views, 12, axis=0)):
        assert janus(pictures, POSES, true) == pytest.approx((0.0, 1.0), abs=1e-6)


def test_a_face_on_both_sides_is_one(true):
    views = true.views(POSES).rgb
    two_faced = np.where(FRONT[:, None, None, None], views, np.roll(views, 12, axis=0))
    assert janus(two_faced, POSES, true) == pytest.approx((1.0, 1.0), abs=1e-6)
    half = 0.5 * views + 0.5 * two_faced
    assert janus(half, POSES, true)[0] == pytest.approx(0.5, abs=0.05)


def test_no_face_is_not_two(true):
    views = true.views(POSES).rgb
    faceless = np.where(FRONT[:, None, None, None], np.roll(views, 12, axis=0), views)
    assert janus(faceless, POSES, true) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_noise_hardly_moves_it(true):
    views = true.views(POSES).rgb
    noisy = np.clip(views + np.random.default_rng(0).normal(0.0, 0.15, views.shape), 0.0, 1.0)
    assert abs(janus(noisy, POSES, true)[0]) < 0.1


def test_views_of_one_side_alone_are_not_enough(true):
    assert janus(true.views(POSES[:3]).rgb, POSES[:3], true) is None


def test_a_run_has_the_number_where_its_object_has_a_front(tmp_path):
    for name, prompt in (("front", "a duck"), ("round", "a red cube")):
        draw(write_run(tmp_path / name, prompt=prompt), prompt, turn=40.0, views=24)
    duck = GroundTruth().score(only_run(tmp_path / "front"))
    assert duck.values["janus"] == pytest.approx(0.0, abs=0.01)
    assert duck.values["janus_front"] == pytest.approx(1.0, abs=0.01)
    assert duck.inapplicable == ()
    cube = GroundTruth().score(only_run(tmp_path / "round"))
    assert cube.inapplicable == ("janus",)
    assert "janus" not in cube.values


def test_an_empty_asset_has_no_face_to_speak_of(tmp_path):
    folder = write_run(tmp_path, prompt="a duck")
    save_renders(folder, np.ones((24, 64, 64, 3)), np.zeros((24, 64, 64)), np.zeros((24, 64, 64)))
    write_cameras(folder, EvaluationRig(n_views=24))
    found = GroundTruth().score(only_run(tmp_path))
    assert found.values["janus"] is None
    assert found.inapplicable == ()
