"""Inits from meshes and from other runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import trimesh

from trace_bench.inits.mesh import MeshSurface
from trace_bench.inits.previous_run import PreviousRun
from trace_bench.representations.gaussians.ply import write_splat_ply
from trace_bench.run_folder.manifest import FileRecord, Manifest, RunIdentity, write_manifest
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError

RNG = Rng(3).at(-1)


@pytest.fixture
def box(tmp_path):
    made = trimesh.creation.box((1.0, 1.0, 2.0))
    made.visual.vertex_colors = np.tile(np.array([51, 102, 255, 255], np.uint8), (len(made.vertices), 1))
    made.export(tmp_path / "box.glb")
    return str(tmp_path / "box.glb")


def test_points_lie_on_the_surface_in_its_colours(box):
    cloud = MeshSurface(box, n=500, minutes=0.5)(RNG)
    assert len(cloud) == 500
    on = (cloud.positions.abs() - torch.tensor([0.5, 0.5, 1.0])).abs().amin(dim=-1)
    assert on.max() < 1e-6
    torch.testing.assert_close(cloud.colors, torch.tensor([0.2, 0.4, 1.0]).expand(500, 3), atol=2e-3, rtol=0)
    assert cloud.splats is None
    assert cloud.seconds == 30.0


def test_the_run_s_seed_draws_the_points(box):
    init = MeshSurface(box, n=20)
    assert torch.equal(init(Rng(0).at(-1)).positions, init(Rng(0).at(-1)).positions)
    assert not torch.equal(init(Rng(0).at(-1)).positions, init(Rng(1).at(-1)).positions)


def test_a_mesh_is_placed(box):
    """y up: the long axis, z in the file, becomes our x."""
    cloud = MeshSurface(box, n=500, up="y", radius=0.8)(RNG)
    extent = cloud.positions.amax(0) - cloud.positions.amin(0)
    assert float(extent[0]) == pytest.approx(2.0 * float(extent[1]), rel=0.02)
    assert 0.75 < cloud.positions.norm(dim=-1).max() <= 0.8 + 1e-6


def test_wrong_settings(box):
    with pytest.raises(TraceBenchError, match=r"init\.n must be at least 1, but is 0"):
        MeshSurface(box, n=0)(RNG)
    with pytest.raises(TraceBenchError, match="does not exist"):
        MeshSurface(box + "x")(RNG)


def make_run(folder, status="done", files=("asset.ply",), **changes):
    """A run folder with a manifest; existing assets are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = RunIdentity(
        "sds", "gaussians", "random", "tiny", "toy", "toy", "0", "a red cube", 2.5, 0, 3, 1, 64
    )
    manifest = Manifest(status, "f" * 64, identity, files=list(files))
    manifest.seconds |= {"load": 40.0, "distill": 88.0, "render": 2.0, "total": 130.0}
    manifest.cost["unet_fwd"] = 600
    for key, value in changes.items():
        setattr(manifest, key, value)
    write_manifest(folder, manifest)
    return str(folder)


@pytest.fixture
def splats(tmp_path):
    torch.manual_seed(1)
    params = {
        "means": torch.randn(9, 3), "quats": torch.randn(9, 4), "scales": torch.randn(9, 3),
        "opacities": torch.randn(9), "sh0": torch.randn(9, 1, 3),
    }  # fmt: skip
    (tmp_path / "run").mkdir()
    write_splat_ply(tmp_path / "run" / "asset.ply", params)
    return params


def test_another_runs_gaussians_go_on(tmp_path, splats):
    cloud = PreviousRun(make_run(tmp_path / "run"))(RNG)
    torch.testing.assert_close(cloud.splats["opacities"], splats["opacities"])
    assert cloud.seconds == 90.0
    assert cloud.notes["run"] == "f" * 64
    assert cloud.notes["cost"]["unet_fwd"] == 600
    json.dumps(cloud.notes)
    assert PreviousRun(str(tmp_path / "run"), keep_splats=False)(RNG).splats is None


def test_a_run_that_was_made_beside_others_took_its_share(tmp_path, splats):
    folder = make_run(tmp_path / "run", lanes=14)
    assert PreviousRun(folder)(RNG).seconds == 90.0


def test_what_an_external_run_declares_is_what_it_took(tmp_path, splats):
    folder = make_run(tmp_path / "run", declared={"name": "DiffSplat", "minutes": 0.2})
    assert PreviousRun(folder)(RNG).seconds == pytest.approx(12.0)
    assert PreviousRun(make_run(tmp_path / "run", declared={"minutes": None}))(RNG).seconds == 0.0


def test_another_runs_mesh_becomes_points(tmp_path):
    (tmp_path / "run").mkdir()
    trimesh.creation.icosphere(radius=0.5).export(tmp_path / "run" / "asset.ply")
    cloud = PreviousRun(make_run(tmp_path / "run"), n=300)(RNG)
    assert len(cloud) == 300
    assert 0.45 < cloud.positions.norm(dim=-1).min() <= cloud.positions.norm(dim=-1).max() < 0.501


def test_only_a_finished_run_with_a_shape_will_do(tmp_path, splats):
    with pytest.raises(TraceBenchError, match=r"There is no finished run in .*nowhere"):
        PreviousRun(str(tmp_path / "nowhere"))(RNG)
    with pytest.raises(TraceBenchError, match="There is no finished run"):
        PreviousRun(make_run(tmp_path / "run", "preempted"))(RNG)
    with pytest.raises(TraceBenchError, match="There is no finished run"):
        PreviousRun(make_run(tmp_path / "run", files=["asset.ply", "gone.png"]))(RNG)
    (tmp_path / "run/other").write_text("a file of this run")
    with pytest.raises(TraceBenchError, match=r"has no asset\.ply: representation=gaussians"):
        PreviousRun(make_run(tmp_path / "run", files=["other"]))(RNG)
    changed = {"asset.ply": FileRecord((tmp_path / "run/asset.ply").stat().st_size, "0" * 64)}
    with pytest.raises(TraceBenchError, match=r"asset\.ply .*its content has changed"):
        PreviousRun(make_run(tmp_path / "run", contents=changed))(RNG)
