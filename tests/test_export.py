"""Exports for other programs: each format is opened by another reader."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from plyfile import PlyData
from run_folders import draw, write_run

from trace_bench.export import FORMATS, main
from trace_bench.representations.gaussians.ply import write_splat_ply
from trace_bench.representations.nerf.mesh import Mesh, MeshSettings, write
from trace_bench.run_folder.manifest import read_manifest, write_manifest
from trace_bench.run_folder.rendering import write_film

COUNT, VIEWS = 50, 12


def finished(folder, files):
    """The manifest of a finished run with these files."""
    manifest = read_manifest(folder)
    manifest.files, manifest.views = ["renders/cameras.json", *files], VIEWS
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def splats(tmp_path):
    """A finished run with Gaussians."""
    folder = write_run(tmp_path / "outputs")
    draw(folder, "a red cube", views=VIEWS)
    rng = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=rng)

    params = {"means": normal(COUNT, 3), "quats": normal(COUNT, 4), "scales": normal(COUNT, 3) - 4.0}
    write_splat_ply(folder / "asset.ply", params | {"opacities": normal(COUNT), "sh0": normal(COUNT, 1, 3)})
    frames = [np.asarray(Image.open(folder / f"renders/rgb_{i}.png")) for i in range(VIEWS)]
    write_film(frames, folder / "turntable.mp4", VIEWS)
    return finished(folder, ["asset.ply", "turntable.mp4"])


@pytest.fixture
def mesh(tmp_path):
    """A finished run with a NeRF's mesh."""
    folder = write_run(tmp_path / "outputs", representation="nerf")
    draw(folder, "a red cube", views=VIEWS)
    box = trimesh.creation.box((1.0, 2.0, 3.0))
    colors = np.tile(np.array([255, 0, 0, 255], np.uint8), (len(box.vertices), 1))
    made = Mesh(np.asarray(box.vertices), np.asarray(box.faces), colors)
    paths = write(made, folder, MeshSettings())
    return finished(folder, [path.name for path in paths])


def only(folder, kind):
    (path,) = folder.glob(f"*.{kind}")
    return path


def test_every_format_of_gaussians(tmp_path, splats, capsys):
    to = tmp_path / "exports"
    assert main([str(splats), f"to={to}"]) == 0
    assert f"4 files of 1 runs in {to}" in capsys.readouterr().out
    own = PlyData.read(str(splats / "asset.ply"))["vertex"].data
    ply = PlyData.read(str(only(to, "ply")))["vertex"].data
    assert np.array_equal(ply, own)

    data = only(to, "splat").read_bytes()
    assert len(data) == 32 * COUNT
    floats = np.frombuffer(data, "<f4").reshape(COUNT, 8)[:, :6]
    small = np.frombuffer(data, "u1").reshape(COUNT, 32)[:, 24:]
    means = np.stack([own[c] for c in "xyz"], axis=1)
    match = np.array([np.abs(means - row[:3]).max(axis=1).argmin() for row in floats])
    assert sorted(match) == list(range(COUNT))
    rows = own[match]
    assert np.abs(means[match] - floats[:, :3]).max() < 1e-3
    scales = np.exp(np.stack([rows[f"scale_{i}"] for i in range(3)], axis=1))
    assert np.allclose(floats[:, 3:], scales, rtol=1e-5)
    colors = (0.5 + 0.28209479177387814 * np.stack([rows[f"f_dc_{i}"] for i in range(3)], axis=1)).clip(0, 1)
    assert np.abs(small[:, :3] / 255 - colors).max() < 1 / 255
    assert np.abs(small[:, 3] / 255 - 1 / (1 + np.exp(-rows["opacity"]))).max() < 1 / 255
    quats = np.stack([rows[f"rot_{i}"] for i in range(4)], axis=1)
    assert np.abs((small[:, 4:].astype(float) - 128) / 128 - quats).max() < 0.01
    weight = np.log(1 / (1 + np.exp(-rows["opacity"]))) + np.log(scales).sum(axis=1)
    assert (np.diff(weight) <= 1e-4).all()


def test_films_have_all_views(tmp_path, splats):
    to = tmp_path / "exports"
    assert main([str(splats), f"to={to}", "format=gif,mp4"]) == 0
    first = np.asarray(Image.open(splats / "renders/rgb_0.png"))
    gif = iio.imread(only(to, "gif"))
    assert gif.shape == (VIEWS, *first.shape)
    assert np.abs(gif[0].astype(int) - first).mean() < 4
    with Image.open(only(to, "gif")) as film:
        assert film.info["loop"] == 0
        assert film.info["duration"] * VIEWS == pytest.approx(4000, rel=0.1)
    mp4 = iio.imread(only(to, "mp4"), plugin="FFMPEG")
    assert len(mp4) == VIEWS
    small = np.asarray(Image.fromarray(mp4[0]).resize(first.shape[1::-1]))
    assert np.abs(small.astype(int) - first).mean() < 6


def test_a_mesh_of_a_nerf(tmp_path, mesh, capsys):
    to = tmp_path / "exports"
    assert main([str(mesh.parents[5]), f"to={to}"]) == 0
    own = trimesh.load(mesh / "asset.ply", process=False)
    glb = trimesh.load(only(to, "glb"), force="mesh", process=False)
    assert (len(glb.vertices), len(glb.faces)) == (len(own.vertices), len(own.faces))
    back = np.asarray(glb.vertices)[:, [2, 0, 1]]  # y up, front +z -> z up, front +x
    assert np.abs(back - own.vertices).max() < 1e-3
    assert not list(to.glob("*.splat"))
    assert main([str(mesh), f"to={to}", "format=splat"]) == 0
    assert "Left out: splat, because" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none"], "none is no run folder, and no output root with finished runs."),
        (["format=ply"], "name a run folder"),
        ([".", "format=obj"], f"format=obj is not known; use {', '.join(FORMATS)}."),
    ],
)
def test_mistakes(words, says, capsys):
    assert main(words) == 2
    assert says in capsys.readouterr().err


def test_one_run_without_a_film_costs_the_others_nothing(tmp_path, splats, capsys):
    """An external mesh has a .ply without Gaussians; the film of the other run was deleted."""
    (splats / "turntable.mp4").unlink()
    root = tmp_path / "outputs"
    folder = write_run(root, method="external", representation="mesh")
    draw(folder, "a red cube", views=VIEWS)
    trimesh.creation.box((1.0, 2.0, 3.0)).export(folder / "asset.ply")
    finished(folder, ["asset.ply"])
    assert main([str(root), f"to={tmp_path / 'exports'}"]) == 2
    said = capsys.readouterr()
    assert f"Not written: mp4. {splats / 'turntable.mp4'} is missing; repeat the run" in said.err
    kinds = sorted(path.suffix for path in (tmp_path / "exports").iterdir())
    assert kinds == [".gif", ".gif", ".ply", ".ply", ".splat"]
    assert "5 files of 2 runs" in said.out


def test_broken_files_are_named(tmp_path, splats, capsys):
    (splats / "asset.ply").write_bytes(b"ply\nno")
    assert main([str(splats), f"to={tmp_path}", "format=splat"]) == 2
    said = capsys.readouterr().err
    assert "asset.ply cannot be read as 3D Gaussians" in said
    assert "Traceback" not in said
    manifest = read_manifest(splats)
    manifest.status = "running"
    write_manifest(splats, manifest)
    assert main([str(splats)]) == 2
    assert "is not finished" in capsys.readouterr().err
