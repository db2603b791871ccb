"""The mesh of a field: a ball's radius, volume and colours, closed, in files that open again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from trace_bench.external.mesh import load_mesh
from trace_bench.inits.pointcloud import read_colors
from trace_bench.representations.gaussians.ply import read_vertices
from trace_bench.representations.nerf.mesh import MeshSettings, extract, write
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.glb_header import read_header

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
        vertices = mesh.vertices
        if path.suffix == ".glb":  # y up, the front at +z
            vertices = vertices[:, [2, 0, 1]]
        else:
            np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], surface.colors)
        np.testing.assert_allclose(vertices, surface.vertices, atol=1e-5)
    start = read_vertices(paths[0])  # and as a start of another run: init=pointcloud
    np.testing.assert_allclose(read_colors(start), surface.colors / 255.0, atol=1e-6)


def test_colours_of_a_glb_are_in_linear_light_and_unlit(tmp_path):
    """As the format says, so that every viewer shows them as the renders do; and we read them back."""
    surface = extract(ball(0.6), halves, 1.0, MeshSettings(resolution=24, density=5.0), "cpu")
    surface = replace(
        surface, colors=np.tile(np.array([[128, 20, 255]], np.uint8), (len(surface.vertices), 1))
    )
    (path,) = write(surface, tmp_path, MeshSettings(formats=("glb",)))
    header, end = read_header(path)
    (primitive,) = header["meshes"][0]["primitives"]
    accessor = header["accessors"][primitive["attributes"]["COLOR_0"]]
    assert (accessor["componentType"], accessor["normalized"], accessor["type"]) == (5123, True, "VEC4")
    assert "KHR_materials_unlit" in header["materials"][primitive["material"]]["extensions"]
    view = header["bufferViews"][accessor["bufferView"]]
    start = end + 8 + view.get("byteOffset", 0)
    stored = np.frombuffer(path.read_bytes()[start : start + view["byteLength"]], "<u2").reshape(-1, 4)
    np.testing.assert_allclose(stored[0] / 65535, [0.2158605, 0.0069954, 1.0, 1.0], atol=1e-5)
    part = load_mesh(path)
    np.testing.assert_allclose(
        part.colors.reshape(-1, 3) * 255, [[128, 20, 255]] * (3 * len(part.faces)), atol=0.1
    )


@pytest.mark.parametrize("wrong", [{"resolution": 2}, {"density": 0.0}, {"formats": ["stl"]}])
def test_mistakes_are_named(wrong):
    with pytest.raises(TraceBenchError, match=r"representation\.mesh"):
        MeshSettings(**wrong)
