"""The Janus number of true objects, and of objects with two faces or none."""

from __future__ import annotations

import numpy as np
import pytest
from control_scores import scores
from run_folders import draw, only_run, save_renders, write_cameras, write_run

from evaluation.metrics.ground_truth import GroundTruth
from evaluation.metrics.janus import janus
from evaluation.metrics.truth import Views, truth
from trace_bench.cameras import EvaluationRig

POSES = [(15.0, 15.0 * i, 2.65, 42.5) for i in range(24)]
FRONT = np.array([abs((15 * i + 180) % 360 - 180) < 90 for i in range(24)])


@pytest.fixture(scope="module", params=["a penguin", "a red house", "a blue chair"])
def true(request):
    return truth(request.param, 64)


def two_sided(views: Views, front: np.ndarray) -> Views:
    """Where `front`, the views themselves, elsewhere those from the opposite side."""
    opposite = [np.roll(values, 12, axis=0) for values in views]
    return Views(*(np.stack([a[i] if front[i] else b[i] for i in range(24)])
                   for a, b in zip(views, opposite, strict=True)))  # fmt: skip


def test_the_true_object_has_none_whichever_way_it_faces(true):
    views = true.views(POSES)
    for seen in (views, Views(*(np.roll(values, 12, axis=0) for values in views))):
        assert janus(seen, POSES, true) == pytest.approx((0.0, 1.0), abs=1e-6)


def test_a_face_on_both_sides_is_one(true):
    views = true.views(POSES)
    two_faced = two_sided(views, FRONT)
    assert janus(two_faced, POSES, true) == pytest.approx((1.0, 1.0), abs=1e-6)
    half = views._replace(rgb=0.5 * views.rgb + 0.5 * two_faced.rgb)
    assert janus(half, POSES, true)[0] == pytest.approx(0.5, abs=0.06)


def test_no_face_is_not_two(true):
    assert janus(two_sided(true.views(POSES), ~FRONT), POSES, true) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_a_black_back_is_not_negative(true):
    views = true.views(POSES)
    black = np.where(FRONT[:, None, None, None], views.rgb, 1.0 - views.alpha[..., None])
    back, front = janus(views._replace(rgb=black), POSES, true)
    assert back >= 0.0
    assert front == pytest.approx(1.0, abs=1e-6)


def test_noise_hardly_moves_it(true):
    views = true.views(POSES)
    noise = np.random.default_rng(0).normal(0.0, 0.15, views.rgb.shape)
    assert janus(views._replace(rgb=np.clip(views.rgb + noise, 0.0, 1.0)), POSES, true)[0] < 0.1


def test_what_is_outside_the_common_silhouette_does_not_count(true):
    views = true.views(POSES)
    dirty = np.where(views.alpha[..., None] > 0.0, views.rgb, 0.3)
    assert janus(views._replace(rgb=dirty), POSES, true) == pytest.approx((0.0, 1.0), abs=1e-6)


def test_views_of_one_side_alone_are_not_enough(true):
    assert janus(true.views(POSES[:3]), POSES[:3], true) is None


def test_a_run_has_the_number_where_its_object_has_a_front(tmp_path):
    for name, prompt in (("front", "a duck"), ("round", "a red cube")):
        draw(write_run(tmp_path / name, prompt=prompt), prompt, turn=40.0, views=24)
    duck = GroundTruth().score(only_run(tmp_path / "front"))
    assert duck.values["janus"] == pytest.approx(0.0, abs=0.01)
    assert duck.values["janus_front"] == pytest.approx(1.0, abs=0.01)
    assert duck.values["no_front"] == 0
    assert duck.inapplicable == ()
    cube = GroundTruth().score(only_run(tmp_path / "round"))
    assert cube.inapplicable == ("janus", "no_front")
    assert "janus" not in cube.values


def test_an_asset_without_a_front_is_counted_apart():
    found = {name: scores(name, "a duck") for name in ("two_backs", "two_fronts")}
    assert found["two_backs"]["janus"] is None
    assert found["two_backs"]["no_front"] == 1
    assert found["two_backs"]["janus_back"] < 0.1
    assert found["two_fronts"]["no_front"] == 0
    assert found["two_fronts"]["janus"] > 0.9


def test_an_empty_asset_has_no_front(tmp_path):
    folder = write_run(tmp_path, prompt="a duck")
    save_renders(folder, np.ones((24, 64, 64, 3)), np.zeros((24, 64, 64)), np.zeros((24, 64, 64)))
    write_cameras(folder, EvaluationRig(n_views=24))
    found = GroundTruth().score(only_run(tmp_path))
    assert found.values["janus"] is None
    assert found.values["no_front"] == 1
    assert found.inapplicable == ("janus",)
