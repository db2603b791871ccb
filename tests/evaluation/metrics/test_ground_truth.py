"""Scores of true objects as assets, and of assets with one known error."""

from __future__ import annotations

import numpy as np
import pytest
from run_folders import draw, only_run, save_renders, write_cameras, write_run

from evaluation.metrics import geometry
from evaluation.metrics.ground_truth import GroundTruth, _surface, _version_2
from evaluation.metrics.likeness import likeness
from evaluation.metrics.renders import chosen_views, load_views, reduced, reduced_resolution
from evaluation.metrics.truth import Views, truth
from evaluation.metrics.turn import _minimum, best_turn, turned
from trace_bench.cameras import EvaluationRig
from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld import scene_from_prompt


def score(root, prompt: str, drawn: str | None = None, turn: float = 0.0, **settings) -> dict:
    folder = write_run(root, prompt=prompt)
    draw(folder, drawn or prompt, turn)
    return GroundTruth(**settings).score(only_run(root)).values


@pytest.mark.parametrize("prompt", ["a red cube", "a duck", "a blue cone on a red sphere"])
def test_the_true_object_is_perfect(tmp_path, prompt):
    values = score(tmp_path, prompt)
    assert [values[name] for name in ("match", "soft_iou", "iou")] == pytest.approx([1.0] * 3, abs=1e-4)
    assert [values[name] for name in ("colour_error", "delta_e")] == pytest.approx([0.0] * 2, abs=1e-2)
    assert values["high_frequency"] == pytest.approx(1.0, abs=1e-3)
    assert values["normal_error"] < 0.6  # 8 bits
    assert values["depth_error"] < 1e-3  # float16
    assert values["completeness"] == 1.0
    assert values["chamfer"] < 0.012  # half the spacing of the compared points
    assert values["azimuth_offset_deg"] == 0.0


@pytest.mark.parametrize("turn", [100.0, -15.0, 180.0])
def test_a_turned_object_is_found(tmp_path, turn):
    values = score(tmp_path, "a duck", turn=turn)
    assert (values["azimuth_offset_deg"] - turn) % 360 == 0
    assert [values[name] for name in ("match", "soft_iou")] == pytest.approx([1.0] * 2, abs=1e-4)
    assert values["normal_error"] < 0.6
    assert values["chamfer"] < 0.012
    assert values["iou_unturned"] < 0.95


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["a blue chair", "a red cube", "a blue sphere", "a red house"])
def test_a_turn_between_the_steps_is_found(prompt):
    poses = [(15.0, 30.0 * i, 2.65, 42.5) for i in range(12)]
    for turn in (33.0, -117.6):
        seen = truth(prompt, 64).views(turned(poses, turn))
        fit = best_turn(seen, truth(prompt, 64), poses, 5.0)
        assert abs((fit.turn - turn + 180.0) % 360.0 - 180.0) < 0.35
        found = likeness(seen, truth(prompt, 64).views(turned(poses, fit.turn)))
        assert found.soft_iou.mean() > 0.99
        assert found.colour_error.mean() < 0.35


def test_colours_decide_among_turns_that_fit_equally_well(tmp_path):
    """A sphere's light tells its turn; a cube has four turns with one silhouette."""
    assert score(tmp_path / "a", "a blue sphere", turn=90.0)["azimuth_offset_deg"] == 90.0
    assert score(tmp_path / "b", "a red cube", turn=-90.0)["azimuth_offset_deg"] == -90.0


def test_the_minimum_of_a_bend_is_found_from_three_values():
    for place in (-0.9, -0.2, 0.0, 0.4, 1.0):
        before, here, after = (0.3 + 0.7 * abs(x - place) for x in (-1, 0, 1))
        assert _minimum(before, here, after) == pytest.approx(place)
    assert _minimum(1.0, 1.0, 1.0) == 0.0


def test_wrong_colour_changes_match_and_colour_error_alone(tmp_path):
    values = score(tmp_path, "a red cube", drawn="a blue cube")
    assert values["soft_iou"] == 1.0
    assert values["depth_error"] < 1e-3
    assert values["colour_error"] > 30
    assert values["match"] < 0.01


def test_wrong_shape_lowers_everything(tmp_path):
    values = score(tmp_path, "a red cube", drawn="a red torus")
    assert values["match"] <= values["soft_iou"] < 0.7
    assert values["chamfer"] > 0.05
    assert values["depth_error"] > 0.05
    assert values["completeness"] < 0.5
    assert values["delta_e"] < values["colour_error"]  # which also has what is only in one silhouette


def test_covering_more_of_the_picture_does_not_thin_out_the_colour_error():
    target = truth("a red cube", 32).views([(15.0, 30.0, 2.65, 42.5)])
    wrong = target._replace(rgb=target.rgb * 0.8 + 0.2 * (1.0 - target.alpha[..., None]))
    hazy = wrong._replace(alpha=np.maximum(wrong.alpha, 0.49))  # white haze on white
    errors = [likeness(asset, target) for asset in (wrong, hazy)]
    assert errors[0].colour_error == errors[1].colour_error
    assert errors[1].match < 0.7 * errors[0].match


def test_colour_difference_has_the_published_values_for_red_and_blue():
    solid = np.ones((1, 4, 4), np.float32)
    red, blue = (np.broadcast_to(np.array(c, np.float32), (1, 4, 4, 3)) for c in ((1, 0, 0), (0, 0, 1)))
    asset, target = Views(red, solid, solid, red), Views(blue, solid, solid + 0.25, blue)
    assert _version_2(asset, target, 0)["delta_e"] == pytest.approx(52.88, abs=0.02)
    assert likeness(asset, target).colour_error == pytest.approx(52.88, abs=0.02)
    found = _surface(asset, target, 0)
    assert found["depth_error"] == pytest.approx(0.25)
    assert found["completeness"] == 0.0
    assert found["normal_error"] == pytest.approx(90.0)


def test_depth_counts_where_both_are_solid_and_what_is_missing_is_incomplete():
    half = np.zeros((1, 4, 4), np.float32)
    half[:, :2] = 1.0
    rgb = np.zeros((1, 4, 4, 3), np.float32)
    other = rgb.copy()
    other[:, 2:] = 1.0
    up = np.broadcast_to(np.float32([0, 0, 1]), rgb.shape)
    found = _surface(Views(rgb, half, half, up), Views(other, np.ones_like(half), half, up), 0)
    assert found == {"depth_error": 0.0, "completeness": 0.5, "normal_error": 0.0}


def test_an_empty_asset_has_no_overlap_and_no_other_number(tmp_path):
    folder = write_run(tmp_path, prompt="a red cube")
    rig = EvaluationRig(n_views=4)
    save_renders(folder, np.ones((4, 64, 64, 3)), np.zeros((4, 64, 64)), np.zeros((4, 64, 64)))
    write_cameras(folder, rig)
    found = GroundTruth().score(only_run(tmp_path))
    assert [found.values[k] for k in ("match", "soft_iou", "iou", "completeness")] == [0.0] * 4
    assert [found.values[k] for k in ("delta_e", "depth_error", "normal_error", "chamfer")] == [None] * 4
    assert found.values["colour_error"] > 40
    assert len(found.rows) == 4


def test_rows_hold_every_view_and_average_to_the_score(tmp_path):
    folder = write_run(tmp_path, prompt="a red cube")
    draw(folder, "a red sphere", views=24)
    found = GroundTruth(views=6).score(only_run(tmp_path))
    assert [row["view"] for row in found.rows] == [0, 4, 8, 12, 16, 20]
    for name in ("match", "soft_iou", "colour_error", "normal_error", "depth_error"):
        assert found.values[name] == pytest.approx(np.mean([row[name] for row in found.rows]), abs=1e-5)


def test_pictures_are_compared_at_their_own_resolution(tmp_path):
    folder = write_run(tmp_path, prompt="a duck")
    draw(folder, "a duck", resolution=128, views=6)
    run = only_run(tmp_path)
    views = load_views(run, [0, 1])
    assert views.rgb.shape == (2, 128, 128, 3)
    assert reduced(views, 64).rgb.shape == (2, 64, 64, 3)
    found = GroundTruth().score(run)
    assert (found.details["resolution"], found.details["reduced"]) == (128, 64)
    assert found.values["match"] == pytest.approx(1.0, abs=1e-4)
    assert [reduced_resolution(size, 64) for size in (64, 128, 512, 100, 40)] == [64, 64, 64, 100, 40]


def test_applies_to_toy_prompts_seen_from_several_sides_only(tmp_path):
    cases = {
        "toy": ("a red cube", 2, True),
        "canvas": ("a red cube", 1, False),
        "other": ("a corgi", 2, False),
    }
    for name, (prompt, views, expected) in cases.items():
        draw(write_run(tmp_path / name, prompt=prompt), "a red cube", views=views)
        assert GroundTruth().applies(only_run(tmp_path / name)) is expected


def test_pictures_and_cameras_that_disagree_are_refused(tmp_path):
    folder = write_run(tmp_path)
    draw(folder, "a red cube", views=4)
    write_cameras(folder, EvaluationRig(n_views=3))
    with pytest.raises(TraceBenchError, match="differ in size"):
        GroundTruth().score(only_run(tmp_path))


@pytest.mark.parametrize(
    "settings", [{"views": 0}, {"azimuth_step_deg": 7.0}, {"azimuth_step_deg": 0.0}, {"points": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(TraceBenchError, match=r"metrics\.ground_truth"):
        GroundTruth(**settings)


def test_back_projected_depth_lies_on_the_surface():
    scene, cameras = scene_from_prompt("a red cube"), EvaluationRig(n_views=5).cameras()
    render = scene.render(cameras)
    for i in range(5):
        depth, inside = render.depth[i, ..., 0].numpy(), render.alpha[i, ..., 0].numpy() == 1.0
        points = geometry.back_project(depth, inside, cameras.c2w[i].numpy(), 42.5)
        assert len(points) > 300
        assert np.abs(scene.distance(points[::7])).max() < 0.01


def test_hidden_and_averted_points_are_not_seen():
    camera = EvaluationRig(n_views=1, elevation_deg=0.0).cameras()
    scene = scene_from_prompt("a red cube")
    depth = scene.render(camera).depth[0, ..., 0].numpy()
    points, _, normals = (x.double().numpy() for x in scene.surface_points(2000, seed=1))
    seen = geometry.seen(points, normals, depth, camera.c2w[0].numpy(), 42.5, 0.05)
    front = normals[:, 0] > 0.9
    assert seen[front].mean() > 0.95
    assert not seen[~front & (normals[:, 0] < 0.1)].any()


def test_chamfer_distance_by_hand():
    a = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    b = np.array([[0.0, 0.0, 1.0]])
    assert geometry.chamfer_distance(a, b) == pytest.approx(0.5 * ((1 + np.sqrt(2)) / 2 + 1))
    assert np.isnan(geometry.chamfer_distance(a, b[:0]))


def test_thinning_forgets_how_often_a_place_was_seen():
    cloud = np.array([[0.001, 0.0, 0.0]] * 50 + [[0.5, 0.5, 0.5]])
    assert geometry.thin(cloud, 0.02) == pytest.approx(np.array([[0.001, 0, 0], [0.5, 0.5, 0.5]]))


def test_rotation_takes_the_front_to_the_left():
    assert geometry.rotate_z(np.array([[1.0, 0.0, 0.3]]), 90.0)[0] == pytest.approx([0.0, 1.0, 0.3])


def test_views_are_evenly_spaced_from_the_front(tmp_path):
    folder = write_run(tmp_path)
    write_cameras(folder, EvaluationRig(n_views=120))
    run = only_run(tmp_path)
    assert chosen_views(run, 4) == [0, 30, 60, 90]
    assert chosen_views(run, 500) == list(range(120))
