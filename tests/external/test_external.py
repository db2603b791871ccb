"""External assets, from the command to a run folder that is scored like ours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from mesh_files import RED, texture, textured_obj
from PIL import Image

from trace_bench.cameras import EvaluationRig
from trace_bench.external.assets import External, asset_kind
from trace_bench.representations.gaussians.ply import read_splat_ply, write_splat_ply
from trace_bench.run_folder.manifest import is_done, read_manifest
from trace_bench.runs.open_run import DIFF
from trace_bench.runs.run import make_asset
from trace_bench.settings.typed_text import readable_overrides
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.errors import TraceBenchError

CONF = str(Path(__file__).parents[1] / "conf")
RIG = ["rig.n_views=3", "rig.resolution=32"]


@pytest.fixture
def box(tmp_path):
    """A red box, front face green, as .glb: y up, front at +z."""
    made = trimesh.creation.box((0.6, 0.9, 0.6))
    colors = np.tile(np.array([255, 0, 0, 255], np.uint8), (12, 1))
    colors[made.face_normals[:, 2] > 0.9] = [0, 255, 0, 255]
    parts = made.submesh([[i] for i in range(12)], append=False)
    for part, color in zip(parts, colors, strict=True):
        part.visual.vertex_colors = np.tile(color, (3, 1))
    trimesh.util.concatenate(parts).export(tmp_path / "box.glb")
    return tmp_path / "box.glb"


@pytest.fixture
def splats(tmp_path):
    torch.manual_seed(0)
    n = 300
    params = {
        "means": torch.nn.functional.normalize(torch.randn(n, 3), dim=-1) * 0.4,
        "quats": torch.randn(n, 4),
        "scales": torch.full((n, 3), -2.5),
        "opacities": torch.full((n,), 3.0),
        "sh0": torch.tensor([1.0, -1.0, -1.0]).expand(n, 1, 3),
    }
    return write_splat_ply(tmp_path / "red.ply", params)


def plan(tmp_path, asset, *overrides, multirun=False, name="Theirs (v1)"):
    typed = [
        "prior=analytic", "method=external", f"method.asset={asset}", f"method.display_name={name}",
        "method.source=Theirs, H100", "method.minutes=0.25", f"output_root={tmp_path / 'out'}", "device=cpu",
        *RIG, *overrides,
    ]  # fmt: skip
    return make_plan(readable_overrides(typed, multirun), multirun, CONF)


def made(tmp_path, asset, *overrides):
    (spec,) = plan(tmp_path, asset, *overrides)
    outcome = make_asset(spec)
    assert outcome.status == "done", outcome.message
    manifest = read_manifest(outcome.folder)
    assert is_done(outcome.folder, manifest)
    return outcome.folder, manifest


def picture(folder, i, kind="rgb"):
    return np.asarray(Image.open(folder / "renders" / f"{kind}_{i}.png"))


def test_gaussians_become_a_run_like_any_other(tmp_path, splats):
    folder, manifest = made(tmp_path, splats)
    assert folder.parts[-5:-1] == ("external-theirs-v1", "gaussians", "toy", "0-a-red-cube")
    assert folder.name.startswith("cfgnone-seed0-")
    run = manifest.run
    assert (run.method, run.representation, run.init) == ("external-theirs-v1", "gaussians", "none")
    assert (run.steps, run.views_per_step, run.guidance_scale) == (0, 0, None)
    assert manifest.declared == {
        "name": "Theirs (v1)", "source": "Theirs, H100", "minutes": 0.25, "asset": "red.ply",
    }  # fmt: skip
    assert manifest.minutes == 0.25
    assert manifest.seconds["distill"] == 0.0
    assert manifest.cost["unet_fwd"] is None
    assert manifest.n_primitives == 300
    assert {path.name for path in folder.iterdir()} - {DIFF} == {
        "manifest.json", "config.yaml", "log.txt", "asset.ply", "asset.safetensors", "preview.png",
        "turntable.mp4", "renders",
    }  # fmt: skip
    assert len(list((folder / "renders").glob("*.png"))) == 6
    centre = picture(folder, 1)[16, 16].astype(int)
    assert centre[0] > 150
    assert centre[1:].max() < 100
    kept, given = read_splat_ply(folder / "asset.ply"), read_splat_ply(splats)
    torch.testing.assert_close(kept["means"], given["means"])


def test_a_mesh_is_seen_from_its_front(tmp_path, box):
    folder, manifest = made(tmp_path, box, "method.up=y", "rig.elevation_deg=0")
    assert manifest.run.representation == "mesh"
    assert manifest.n_primitives == 12
    assert picture(folder, 0)[16, 16].tolist() == [0, 255, 0]  # green, the file's +z
    assert picture(folder, 1)[16, 16].tolist() == [255, 0, 0]
    assert picture(folder, 0, "normal")[16, 16].tolist() == [255, 128, 128]  # towards +x
    assert (folder / "asset.glb").read_bytes() == box.read_bytes()
    geometry = np.load(folder / "renders" / "geometry.npz")
    tall = (geometry["alpha"][0] > 128).sum(axis=0).max() / (geometry["alpha"][0] > 128).sum(axis=1).max()
    assert tall == pytest.approx(1.5, abs=0.2)


def test_a_radius_and_a_turn(tmp_path, box):
    turned, _ = made(tmp_path, box, "method.up=y", "method.turn_deg=120", "rig.elevation_deg=0")
    assert picture(turned, 1)[16, 16].tolist() == [0, 255, 0]  # the second of three views
    small, _ = made(tmp_path, box, "method.up=y", "method.radius=0.2")
    share = (np.load(small / "renders" / "geometry.npz")["alpha"] > 128).mean()
    assert 0.0 < share < 0.03


def pictures(folder, n=3, size=32, normals=False):
    folder.mkdir(parents=True)
    for i in range(n):
        rgba = np.zeros((size, size, 4), np.uint8)
        rgba[8:24, 8:24] = [40 * i, 0, 200, 255]
        Image.fromarray(rgba).save(folder / f"view_{i}.png")
        if normals:
            Image.new("RGB", (size, size), (10 * i, 0, 0)).save(folder / f"normal_{i}.png")
    return folder


def test_a_folder_of_pictures_is_copied_over_white(tmp_path):
    folder, manifest = made(tmp_path, pictures(tmp_path / "theirs"))
    assert manifest.run.representation == "renders"
    assert manifest.n_primitives is None
    for i in range(3):
        assert picture(folder, i)[16, 16].tolist() == [40 * i, 0, 200]
        assert picture(folder, i)[0, 0].tolist() == [255, 255, 255]
        assert (picture(folder, i, "normal") == 255).all()
    assert not (folder / "renders" / "geometry.npz").exists()  # nobody knows its shape
    cameras = json.loads((folder / "renders" / "cameras.json").read_text())
    assert [camera["azimuth_deg"] for camera in cameras] == pytest.approx([0.0, 120.0, -120.0])
    with_normals, _ = made(tmp_path, pictures(tmp_path / "normals", normals=True))
    assert picture(with_normals, 2, "normal")[0, 0].tolist() == [20, 0, 0]


def test_pictures_that_do_not_fit_the_rig(tmp_path):
    few, small = pictures(tmp_path / "few", n=2), pictures(tmp_path / "small", size=16)
    for folder, word in (
        (few, "has 2 images, but the rig has 3 cameras; .* set rig.n_views=2"),
        (small, "has 16 x 16 pixels, but the rig has 32 x 32; .* set rig.resolution=16"),
    ):
        (spec,) = plan(tmp_path, folder)
        outcome = make_asset(spec)
        assert outcome.status == "failed"
        with pytest.raises(TraceBenchError, match=word):
            raise TraceBenchError(outcome.message)
    assert made(tmp_path, few, "rig.n_views=2")[1].views == 2


def test_a_sweep_takes_each_prompts_own_file(tmp_path, splats):
    for i in range(3):
        (tmp_path / f"{i}.ply").write_bytes(splats.read_bytes() + b"\n" * 0)
    specs = plan(tmp_path, f"{tmp_path}/{{prompt_id}}.ply", "prompt=0,2", multirun=True)
    assert [Path(spec.job.method["asset"]).name for spec in specs] == ["0.ply", "2.ply"]
    with pytest.raises(TraceBenchError, match=r"7\.ply does not exist"):
        plan(tmp_path, f"{tmp_path}/{{prompt_id}}.ply", "prompt=0,7", multirun=True)


@pytest.mark.slow
def test_who_it_is_depends_on_the_file_and_nothing_of_distilling(tmp_path, splats, box):
    (first,) = plan(tmp_path, splats)
    moved = tmp_path / "elsewhere.ply"
    moved.write_bytes(splats.read_bytes())
    assert plan(tmp_path, moved)[0].fingerprint == first.fingerprint
    assert plan(tmp_path, splats, "resolution=32", "background=white")[0].fingerprint == first.fingerprint
    others = [plan(tmp_path, box)[0], plan(tmp_path, splats, "prompt=1")[0]]
    others += [plan(tmp_path, splats, f"method.{key}")[0] for key in ("minutes=3", "source=us", "radius=0.5")]
    assert len({spec.fingerprint for spec in [first, *others]}) == 6
    assert plan(tmp_path, splats, name="External")[0].identity.method == "external"


def test_a_finished_contestant_is_not_touched_again(tmp_path, splats):
    folder, manifest = made(tmp_path, splats)
    (spec,) = plan(tmp_path, splats)
    assert make_asset(spec).status == "skipped"
    again = make_asset(dataclasses.replace(spec, job=dataclasses.replace(spec.job, force=True)))
    assert again.status == "done"
    assert read_manifest(folder).fingerprint == manifest.fingerprint


def test_assets_that_will_not_do(tmp_path):
    trimesh.PointCloud(np.zeros((3, 3))).export(tmp_path / "points.ply")
    (tmp_path / "x.blend").write_text("")
    for name, word in (
        ("none.ply", "does not exist"),
        ("points.ply", "neither 3D Gaussians nor triangles"),
        ("x.blend", "cannot be rendered"),
    ):
        with pytest.raises(TraceBenchError, match=word):
            asset_kind(tmp_path / name)
    for wrong, word in (({"source": " "}, "method.source"), ({"minutes": -1}, "method.minutes")):
        with pytest.raises(TraceBenchError, match=word):
            External(**{"asset": "x", "source": "x", "minutes": 1.0} | wrong)
    assert External("x", "x", None).declared(None)["minutes"] is None


def test_pictures_of_a_run_can_be_a_contestant(tmp_path, splats):
    """With the same rig, opaque pictures are bitwise identical."""
    first, _ = made(tmp_path, splats)
    second, _ = made(tmp_path, first / "renders")
    for i in range(EvaluationRig(n_views=3).n_views):
        np.testing.assert_array_equal(picture(first, i), picture(second, i))
        np.testing.assert_array_equal(picture(first, i, "normal"), picture(second, i, "normal"))


def failed(tmp_path, asset, *overrides):
    (spec,) = plan(tmp_path, asset, *overrides)
    outcome = make_asset(spec)
    assert outcome.status == "failed"
    assert read_manifest(outcome.folder).status == "failed"
    assert not (outcome.folder / "renders").exists()
    return outcome.message


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("opacities", float("nan"), "opacity is NaN in 1 of 300 rows"),
        ("scales", 100.0, "scale_0 is too large"),
        ("quats", 0.0, "are all 0 in 1 of 300 rows"),
    ],
)
def test_gaussians_with_one_bad_row_are_refused(tmp_path, splats, name, value, word):
    params = {key: tensor.clone() for key, tensor in read_splat_ply(splats).items()}
    params[name][7] = value
    said = failed(tmp_path, write_splat_ply(tmp_path / "bad.ply", params))
    assert "bad.ply: " in said
    assert word in said


def test_a_contestant_that_nobody_sees_is_refused(tmp_path, splats, box):
    params = read_splat_ply(splats)
    hidden = write_splat_ply(tmp_path / "hidden.ply", params | {"opacities": torch.full((300,), -20.0)})
    assert "No camera of the rig sees anything" in failed(tmp_path, hidden)
    far = trimesh.creation.box((0.1, 0.1, 0.1))
    far.apply_translation([0.0, 0.0, 500.0])
    far.export(tmp_path / "far.ply")
    assert "place it with method.radius" in failed(tmp_path, tmp_path / "far.ply")
    assert made(tmp_path, tmp_path / "far.ply", "method.radius=0.8")[1].n_primitives == 12
    far.apply_scale(1e7)
    far.export(tmp_path / "huge.ply")
    assert made(tmp_path, tmp_path / "huge.ply", "method.radius=0.8")[1].n_primitives == 12
    white = tmp_path / "white"
    white.mkdir()
    for i in range(3):
        Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(white / f"{i}.png")
    assert "are all white" in failed(tmp_path, white)


def test_pictures_come_in_the_order_of_the_number_that_varies(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for i, n in enumerate((0, 2, 10)):
        Image.new("RGB", (32, 32), (40 * i, 0, 0)).save(theirs / f"{n}_rgb_512.png")
    folder, _ = made(tmp_path, theirs)
    assert [picture(folder, i)[0, 0, 0] for i in range(3)] == [0, 40, 80]
    Image.new("RGB", (32, 32)).save(theirs / "cover.png")
    assert "cannot be put in one order" in failed(tmp_path, theirs, "rig.n_views=4")


def test_a_changed_texture_makes_a_new_run(tmp_path):
    path = textured_obj(tmp_path, "newmtl mat\n\tmap_Kd\ttex.png\n")
    first, _ = made(tmp_path, path, "method.radius=0.8")
    texture(tmp_path / "tex.png", (0, 0, 255))
    second, _ = made(tmp_path, path, "method.radius=0.8")
    assert picture(first, 0)[16, 16].tolist() == list(RED)
    assert picture(second, 0)[16, 16].tolist() == [0, 0, 255]
