"""The mesh of a field: a ball's radius, volume and colours, closed, in files that open again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from trace_bench.inits.pointcloud import read_colors
from trace_bench.representations.gaussians.ply import read_vertices
from trace_bench.representations.nerf.mesh import MeshSettings, extract, write
from trace_bench.system.errors import TraceBenchError

SETTINGS = MeshSettings(resolution=48, density=5.0)


def ball(radius, center=(0.0, 0.0, 0.0)):
    """Density 5 on a sphere, falling outwards."""
    at = torch.tensor(center)
    return lambda p: (5.0 + 40.0 * (radius - (p - at).norm(dim=-1))).clamp(min=0.0)


def halves(p):
    """Red where x > 0, green elsewhere."""
    red = (p[:, :1] > 0).float()
    return torch.cat([red, 1.0 - red, torch.zeros_like(red)], dim=-1)


def test_ball():
    surface = extract(ball(0.6, (0.1, 0.0, -0.1)), halves, 1.0, SETTINGS, "cpu")
    distance = np.linalg.norm(surface.vertices - np.array([0.1, 0.0, -0.1]), axis=-1)
    assert np.abs(distance - 0.6).max() < 0.01
    mesh = trimesh.Trimesh(surface.vertices, surface.faces)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.01)  # positive: normals outwards
    assert (surface.colors[surface.vertices[:, 0] > 0] == [255, 0, 0]).all()
    assert (surface.colors[surface.vertices[:, 0] <= 0] == [0, 255, 0]).all()


def test_closed_where_the_field_reaches_the_cubes_faces():
    surface = extract(ball(0.9), halves, 0.7, SETTINGS, "cpu")
    assert trimesh.Trimesh(surface.vertices, surface.faces, process=True).is_watertight
    assert np.abs(surface.vertices).max() <= 0.7


def test_threshold_by_itself_is_the_mean_of_what_is_not_empty():
    def density(p):
        return torch.where(p.norm(dim=-1) < 0.5, 30.0, torch.where(p.norm(dim=-1) < 0.6, 1e-3, 0.0))

    surface = extract(density, halves, 1.0, MeshSettings(resolution=48), "cpu")
    assert np.linalg.norm(surface.vertices, axis=-1).mean() == pytest.approx(0.5, abs=0.03)


def test_no_surface_is_no_mesh(tmp_path, caplog):
    assert extract(lambda p: torch.zeros(len(p)), halves, 1.0, MeshSettings(resolution=8), "cpu") is None
    assert extract(ball(0.5), halves, 1.0, MeshSettings(resolution=8, density=1e3), "cpu") is None
    assert write(None, tmp_path, SETTINGS) == []
    assert "no mesh is written" in caplog.text


def test_files_open_again(tmp_path):
    surface = extract(ball(0.6), halves, 1.0, MeshSettings(resolution=24, density=5.0), "cpu")
    paths = write(surface, tmp_path, SETTINGS)
    assert [path.name for path in paths] == ["asset.ply", "asset.obj", "asset.glb"]
    for path in paths:
        mesh = trimesh.load(path, force="mesh", process=False)
        assert len(mesh.faces) == len(surface.faces)
        vertices, colors = mesh.vertices, mesh.visual.vertex_colors[:, :3]
        if path.suffix == ".glb":  # y up, the front at +z
            vertices = vertices[:, [2, 0, 1]]
        np.testing.assert_allclose(vertices, surface.vertices, atol=1e-5)
        np.testing.assert_array_equal(colors, surface.colors)
    start = read_vertices(paths[0])  # and as a start of another run: init=pointcloud
    np.testing.assert_allclose(read_colors(start), surface.colors / 255.0, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"resolution": 2}, {"density": 0.0}, {"formats": ["stl"]}])
def test_mistakes_are_named(wrong):
    with pytest.raises(TraceBenchError, match=r"representation\.mesh"):
        MeshSettings(**wrong)
