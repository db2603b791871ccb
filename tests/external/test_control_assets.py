"""Controls, from the command to a run folder, and what each looks like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trace_bench.cameras import EvaluationRig, make_cameras
from trace_bench.external.controls import CONTROLS, VisibleControl
from trace_bench.run_folder.manifest import is_done, read_manifest
from trace_bench.runs.run import make_asset
from trace_bench.settings.config import settings_of
from trace_bench.settings.typed_text import readable_overrides
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld import scene_from_prompt

CONF = str(Path(__file__).parents[1] / "conf")
AHEAD = [0.0, 90.0, 180.0, 270.0]


def seen(name: str, prompt: str = "a duck", azimuths=AHEAD, size: int = 48):
    cameras = make_cameras(15.0, torch.tensor(azimuths), 2.65, 42.5, size, size)
    asset = VisibleControl(CONTROLS[name], scene_from_prompt(prompt))
    return asset.render(cameras, torch.ones(3), with_normals=True)


def plan(tmp_path, *overrides, multirun=False):
    typed = ["prior=analytic", f"output_root={tmp_path / 'out'}", "device=cpu", "rig.n_views=3", *overrides]
    return make_plan(readable_overrides([*typed, "rig.resolution=32"], multirun), multirun, CONF)


def test_a_control_becomes_a_run_like_any_other(tmp_path):
    (spec,) = plan(tmp_path, "method=control", "method.control=two_backs", "prompt=a duck")
    outcome = make_asset(spec)
    assert outcome.status == "done", outcome.message
    manifest = read_manifest(outcome.folder)
    assert is_done(outcome.folder, manifest)
    assert manifest.run.is_control
    assert (manifest.run.method, manifest.run.representation) == ("control-two-backs", "control")
    assert manifest.declared["control"] == "two_backs"
    assert manifest.minutes is None
    assert (outcome.folder / "renders" / "geometry.npz").is_file()
    assert len(list((outcome.folder / "renders").glob("*.png"))) == 6


def test_controls_have_runs_of_their_own(tmp_path):
    fog, half = (plan(tmp_path, "method=control", f"method.control={name}")[0] for name in ("fog", "half"))
    assert fog.fingerprint != half.fingerprint
    assert settings_of(fog.job.method) == {"control": "fog"}


@pytest.mark.slow
def test_the_experiment_makes_every_control_of_every_toy_prompt(tmp_path):
    runs = make_plan(["experiment=controls", f"output_root={tmp_path}"], multirun=True)
    assert {run.job.method["control"] for run in runs} == set(CONTROLS)
    assert len(runs) == 8 * len(CONTROLS)


def test_an_unknown_control_is_refused_before_a_run_begins(tmp_path):
    with pytest.raises(TraceBenchError, match=r"method\.control=mist is not one of truth, turned, fog"):
        plan(tmp_path, "method=control", "method.control=mist")[0].identity  # noqa: B018


def test_a_prompt_outside_the_toy_world_fails_with_one_sentence(tmp_path):
    (spec,) = plan(tmp_path, "method=control", "prompt=a zombie joker")
    outcome = make_asset(spec)
    assert outcome.status == "failed"
    assert "The toy world does not know 'zombie', 'joker'" in outcome.message


def test_the_truth_is_the_scene_itself():
    cameras = EvaluationRig(n_views=3, resolution=48).cameras()
    true, made = scene_from_prompt("a duck").render(cameras), seen("truth", azimuths=cameras.azimuth_deg)
    for name in ("rgb", "alpha", "depth", "normal"):
        torch.testing.assert_close(getattr(made, name), getattr(true, name), atol=1e-4, rtol=0)


def test_a_turned_and_a_mirrored_object_are_the_object_from_elsewhere():
    true, turned, mirrored = seen("truth"), seen("turned"), seen("mirrored")
    torch.testing.assert_close(turned.rgb, true.rgb.roll(1, 0), atol=1e-3, rtol=0)
    torch.testing.assert_close(mirrored.rgb[0], true.rgb[0].flip(1), atol=1e-3, rtol=0)
    torch.testing.assert_close(mirrored.rgb[1], true.rgb[3].flip(1), atol=1e-3, rtol=0)
    x, y, z = turned.normal[1].unbind(-1)  # seen from +y: what the front's normals were, turned
    torch.testing.assert_close(torch.stack([y, -x, z], -1), true.normal[0], atol=1e-3, rtol=0)


def test_normals_of_changed_shapes_are_those_of_the_surface():
    """A normal is orthogonal to the surface through the depths of neighbouring pixels."""
    size, fovy = 96, 42.5
    focal = 0.5 * size / np.tan(np.radians(fovy / 2))
    for name in ("truth", "scaled", "two_fronts", "half"):
        cameras = make_cameras(15.0, 30.0, 2.65, fovy, size, size)
        asset = VisibleControl(CONTROLS[name], scene_from_prompt("a blue sphere"))
        view = asset.view(cameras, 0)
        row, column = np.indices((size, size)) + 0.5
        rays = np.stack([(column - size / 2) / focal, (size / 2 - row) / focal, -np.ones((size, size))], -1)
        c2w = cameras.c2w[0].double().numpy()
        points = (rays * view.depth[..., None]) @ c2w[:3, :3].T + c2w[:3, 3]
        normal = np.cross(points[1:-1, 2:] - points[1:-1, :-2], points[:-2, 1:-1] - points[2:, 1:-1])
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
        inside = view.rgba[..., 3] == 1.0
        deep = (
            inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        )
        cosine = (normal * view.normal[1:-1, 1:-1]).sum(-1)[deep]
        assert np.median(cosine) > 0.99, name


def test_halves_are_shown_twice_or_missing():
    true, fronts, backs, half = (seen(name) for name in ("truth", "two_fronts", "two_backs", "half"))
    assert float((fronts.rgb[0] - true.rgb[0]).abs().mean()) < 0.01
    torch.testing.assert_close(fronts.rgb[2], fronts.rgb[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(backs.rgb[0], backs.rgb[2], atol=1e-3, rtol=0)
    black = lambda render, i: int((render.rgb[i].amax(-1) < 0.3).sum())  # noqa: E731 - the eyes
    assert black(fronts, 2) == pytest.approx(black(true, 0), abs=3)
    assert black(fronts, 2) > 6 > black(backs, 0)
    assert 0.45 < float(half.alpha[0].sum() / true.alpha[0].sum()) < 0.55


def test_haze_paint_and_checks_change_what_they_say():
    true = seen("truth")
    fog, checks, black = seen("fog"), seen("checkerboard"), seen("black_back")
    assert float(fog.alpha[true.alpha == 0].max()) == pytest.approx(0.49)
    solid = (true.alpha == 1)[..., 0]
    torch.testing.assert_close(fog.rgb[solid], true.rgb[solid])
    pool = torch.nn.functional.avg_pool2d
    smooth = [pool(render.rgb.permute(0, 3, 1, 2), 8) for render in (checks, true)]
    assert float((smooth[0] - smooth[1]).abs().mean()) < 0.01
    assert float((checks.rgb - true.rgb).abs()[solid].mean()) > 0.05
    assert float(black.rgb[2][solid[2]].max(-1).values.median()) == 0.0
    torch.testing.assert_close(black.alpha, true.alpha)
