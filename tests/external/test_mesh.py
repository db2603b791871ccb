"""Meshes from files: triangles, colours from vertices, faces and textures, points on the surface."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from mesh_files import RED, texture
from PIL import Image

from trace_bench.external.mesh import load_mesh
from trace_bench.external.mesh_part import GREY
from trace_bench.external.placement import Placement
from trace_bench.system.errors import TraceBenchError

SQUARE = ([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])
CORNERS = np.array([[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [255, 255, 255, 255]], np.uint8)


def square(visual=None):
    mesh = trimesh.Trimesh(*SQUARE, process=False)
    if visual is not None:
        mesh.visual = visual
    return mesh


def quarters():
    """A texture with one colour per quarter: red, green at the top; blue, white at the bottom."""
    picture = np.zeros((8, 8, 3), np.uint8)
    for (i, j), color in zip(((0, 0), (0, 4), (4, 0), (4, 4)), CORNERS, strict=True):
        picture[i : i + 4, j : j + 4] = color[:3]
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(picture))
    return trimesh.visual.TextureVisuals(uv=uv, material=material)


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_vertex_colours(tmp_path, suffix):
    square(trimesh.visual.ColorVisuals(vertex_colors=CORNERS)).export(tmp_path / f"x.{suffix}")
    mesh = load_mesh(tmp_path / f"x.{suffix}")
    assert mesh.faces.shape == (2, 3)
    at = mesh.colors_at(np.array([0, 0, 1]), np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1.0]]))
    np.testing.assert_allclose(at, [[1, 0, 0], [0.5, 0.5, 0], [1, 1, 1]], atol=3e-3)


def test_face_colours_and_none(tmp_path):
    visual = trimesh.visual.ColorVisuals(square(), face_colors=CORNERS[:2])
    square(visual).export(tmp_path / "x.off")
    square().export(tmp_path / "grey.stl")
    assert (
        load_mesh(tmp_path / "grey.stl").colors.min() == load_mesh(tmp_path / "grey.stl").colors.max() == GREY
    )
    assert len(load_mesh(tmp_path / "x.off").faces) == 2


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_textures(tmp_path, suffix):
    square(quarters()).export(tmp_path / f"x.{suffix}")
    mesh = load_mesh(tmp_path / f"x.{suffix}")
    points, colors = mesh.sample(2000, np.random.default_rng(0))
    inner = (np.abs(points[:, :2] % 0.5 - 0.25) < 0.15).all(axis=1)  # away from where colours meet
    where = (points[inner, 0] > 0.5) + 2 * (points[inner, 1] < 0.5)  # top left, top right, bottom left, ...
    np.testing.assert_allclose(colors[inner], CORNERS[where, :3] / 255.0, atol=1e-5)


def test_parts_of_a_scene_stand_where_it_puts_them(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(square(quarters()))
    moved = np.eye(4)
    moved[2, 3] = 5.0
    scene.add_geometry(square(trimesh.visual.ColorVisuals(vertex_colors=CORNERS)), transform=moved)
    scene.export(tmp_path / "x.glb")
    mesh = load_mesh(tmp_path / "x.glb")
    assert sorted(np.unique(mesh.vertices[:, 2])) == [0.0, 5.0]
    assert sorted(np.unique(mesh.texture)) == [-1, 0]
    assert mesh.faces.max() == len(mesh.vertices) - 1


def test_points_are_uniform_over_the_area(tmp_path):
    """A square of area 1 and one of area 9."""
    large = square()
    large.apply_scale(3.0)
    large.apply_translation([10.0, 0.0, 0.0])
    trimesh.util.concatenate([square(), large]).export(tmp_path / "x.ply")
    points, colors = load_mesh(tmp_path / "x.ply").sample(20_000, np.random.default_rng(0))
    on_large = points[:, 0] > 5.0
    assert on_large.mean() == pytest.approx(0.9, abs=0.01)
    inside = points[on_large][:, :2] - [10.0, 0.0]
    histogram, _, _ = np.histogram2d(*inside.T, bins=3, range=[[0, 3], [0, 3]])
    np.testing.assert_allclose(histogram / histogram.sum(), np.full((3, 3), 1 / 9), atol=0.01)
    assert colors.shape == (20_000, 3)


def test_placed(tmp_path):
    square().export(tmp_path / "x.ply")
    placed = load_mesh(tmp_path / "x.ply").placed(Placement(up="y", radius=0.5))
    assert np.linalg.norm(placed.vertices, axis=1).max() == pytest.approx(0.5)
    np.testing.assert_allclose(np.abs(placed.normals()[:, 0]), 1.0)  # z became x


def test_files_that_will_not_do(tmp_path):
    trimesh.PointCloud(np.zeros((3, 3))).export(tmp_path / "points.ply")
    (tmp_path / "broken.glb").write_bytes(b"not a mesh")
    (tmp_path / "broken.obj").write_text("this is not an obj")
    (tmp_path / "x.blend").write_text("")
    for name, word in (
        ("none.ply", "does not exist"),
        ("points.ply", "has no triangles"),
        ("broken.glb", "cannot be read as a mesh"),
        ("broken.obj", "cannot be read as a mesh|has no triangles"),
        ("x.blend", "is not a supported mesh"),
    ):
        with pytest.raises(TraceBenchError, match=word) as refusal:
            load_mesh(tmp_path / name)
        assert "\n" not in str(refusal.value)


def ply(path, header, rows, faces="3 0 1 2\n3 0 2 3\n", of_faces=""):
    """A square as ASCII .ply; header: further properties of the vertices; rows: their values."""
    corners = ["0 0 0", "1 0 0", "1 1 0", "0 1 0"]
    lines = "".join(f"{corner} {row}\n" for corner, row in zip(corners, rows, strict=True))
    path.write_text(
        "ply\nformat ascii 1.0\n" + ("comment TextureFile tex.png\n" if "float s" in header else "")
        + "element vertex 4\nproperty float x\nproperty float y\nproperty float z\n" + header
        + "element face 2\nproperty list uchar int vertex_indices\n" + of_faces
        + "end_header\n" + lines + faces
    )  # fmt: skip
    return path


def only_color(path):
    _, colors = load_mesh(path).sample(20, np.random.default_rng(0))
    assert np.ptp(colors, axis=0).max() < 1e-6
    return colors[0].tolist()


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("uchar", "255 51 0"),
        ("int", "255 51 0"),
        ("ushort", "65535 13107 0"),
        ("float", "255 51 0"),
        ("float", "1 0.2 0"),
    ],
)
@pytest.mark.parametrize(
    "names", ["red green blue", "Red Green Blue", "diffuse_red diffuse_green diffuse_blue"]
)
def test_ply_vertex_colours_of_every_type(tmp_path, kind, row, names):
    header = "".join(f"property {kind} {name}\n" for name in names.split())
    assert only_color(ply(tmp_path / "x.ply", header, [row] * 4)) == pytest.approx([1.0, 0.2, 0.0], abs=1e-6)


def test_ply_colours_beside_texture_coordinates_and_textures(tmp_path):
    coordinates = "property float u\nproperty float v\n"
    colors = "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    assert only_color(ply(tmp_path / "x.ply", coordinates + colors, ["0 0 255 0 0"] * 4)) == [1.0, 0.0, 0.0]
    textured = ply(tmp_path / "y.ply", "property float s\nproperty float t\n", ["0.5 0.5"] * 4)
    with pytest.raises(TraceBenchError, match=r"y\.ply needs tex\.png, which does not exist"):
        load_mesh(textured)
    texture(tmp_path / "Tex.PNG")
    assert only_color(textured) == pytest.approx([value / 255 for value in RED], abs=1e-6)


def test_ply_face_colours_are_bytes(tmp_path):
    of_faces = "".join(f"property {{}} {name}\n" for name in ("red", "green", "blue"))
    faces = "3 0 1 2 255 0 0\n3 0 2 3 255 0 0\n"
    assert only_color(ply(tmp_path / "x.ply", "", [""] * 4, faces, of_faces.replace("{}", "uchar"))) == [
        1,
        0,
        0,
    ]
    with pytest.raises(TraceBenchError, match="face colours that are no bytes"):
        load_mesh(ply(tmp_path / "x.ply", "", [""] * 4, faces, of_faces.replace("{}", "int")))


def test_meshes_without_a_surface_are_refused(tmp_path):
    trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]], process=False).export(
        tmp_path / "flat.ply"
    )
    with pytest.raises(TraceBenchError, match=r"flat\.ply has only triangles without area"):
        load_mesh(tmp_path / "flat.ply")
    for value in ("nan", "inf", "1e200"):
        (tmp_path / "x.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 {value} 0\nv 0 1 0\nf 1 2 3\nf 1 2 4\n")
        with pytest.raises(TraceBenchError, match="positions at 1 of 4 vertices"):
            load_mesh(tmp_path / "x.obj")


def test_corners_that_do_not_exist_are_refused(tmp_path):
    for index in ("9", "-1"):
        path = ply(tmp_path / "x.ply", "", [""] * 4, f"3 0 1 2\n3 0 2 {index}\n")
        with pytest.raises(TraceBenchError, match="has 1 of 2 triangles with corners that do not exist"):
            load_mesh(path)
