"""The front of every start and external asset faces the camera at azimuth 0, whose text is "front view"."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from trace_bench.cameras import make_cameras
from trace_bench.external.placement import Placement
from trace_bench.inits import point_e
from trace_bench.inits.mesh import MeshSurface
from trace_bench.inits.point_e import PointE
from trace_bench.inits.pointcloud import PlyPoints
from trace_bench.inits.shap_e import ShapE
from trace_bench.representations.gaussians.gaussians import Gaussians
from trace_bench.seeding import Rng

RNG = Rng(0).at(-1)
RED, GREEN, BLUE = np.eye(3)
# The frames of the codes and formats: the front, and what is on the right of a viewer in front of it.
# Shap-E: GaussianDreamer's and TraCe's camera at azimuth 0 stands at -y with +x on its right
# (threestudio/data/uncond.py: pose_spherical(azimuth + 180, ...)). Point-E has the same frame; LucidDreamer
# turns y to -y and looks from +y with -x on its right (scene/dataset_readers.py). glTF 2.0, 3.4: front +z.
MODEL = {"front": (0, -1, 0), "right": (1, 0, 0)}
GLTF = {"front": (0, 0, 1), "right": (1, 0, 0)}
OURS = {"front": (1, 0, 0), "right": (0, 1, 0)}


def cube(front, right):
    """Points on a cube of half side 0.5, [N, 3], and their colours: green front, blue right, the rest red."""
    ticks = np.linspace(-0.45, 0.45, 12)
    u, v = (side.ravel() for side in np.meshgrid(ticks, ticks))
    points, colors = [], []
    for axis in range(3):
        for sign in (-1, 1):
            face = np.insert(np.stack([u, v], axis=-1), axis, 0.5 * sign, axis=1)
            normal = np.eye(3)[axis] * sign
            points.append(face)
            color = GREEN if normal @ front > 0.5 else BLUE if normal @ right > 0.5 else RED
            colors.append(np.tile(color, (len(face), 1)))
    return np.concatenate(points), np.concatenate(colors)


def seen(cloud, azimuth):
    """The colour in the middle of the picture from this azimuth."""
    gaussians = Gaussians(cloud, 32, (4, 8, 8), 0, "cpu", opacity=0.95)
    with torch.no_grad():
        rgb = gaussians.render(make_cameras(0.0, azimuth, 3.0, 40.0, 32, 32), torch.zeros(3)).rgb
    return rgb[0, 14:18, 14:18].mean(dim=(0, 1)).numpy()


def is_turned_right(cloud, mirrored=False):
    right, left = (-90.0, 90.0) if mirrored else (90.0, -90.0)
    np.testing.assert_allclose(seen(cloud, 0.0), GREEN, atol=0.2)
    np.testing.assert_allclose(seen(cloud, right), BLUE, atol=0.2)
    np.testing.assert_allclose(seen(cloud, left), RED, atol=0.2)
    np.testing.assert_allclose(seen(cloud, 180.0), RED, atol=0.2)


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Shap-E and Point-E that make the cube, in their own frame."""
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path))
    points, colors = cube(**MODEL)
    mesh = {"vertices": points, "colors": colors, "commit": np.array("")}
    monkeypatch.setattr(ShapE, "_generate", lambda *_: mesh)
    monkeypatch.setattr(PointE, "_generate", lambda *_: {"positions": points, "colors": colors})
    monkeypatch.setattr(point_e, "find_spec", lambda name: name)


@pytest.mark.usefixtures("made")
def test_shap_e():
    is_turned_right(ShapE(candidates=100, scale=1.0)(RNG))


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("mirror", [True, False])
def test_point_e(mirror):
    is_turned_right(PointE(copies=1, ball=0.0, lift=0.0, colors="model", mirror_y=mirror)(RNG), mirror)


@pytest.mark.usefixtures("made")
def test_the_released_turns():
    """(x, y) -> (-y, x) for Shap-E; for Point-E, once y is -y, (x, y) -> (y, -x)."""
    x, y, z = (torch.from_numpy(column).float() for column in cube(**MODEL)[0].T)
    vertices = ShapE(candidates=100, scale=1.0)(RNG).positions[-len(x) :]
    torch.testing.assert_close(vertices, torch.stack([-y, x, z], dim=-1))
    cloud = PointE(copies=1, ball=0.0, lift=0.15)(RNG)
    mirrored = -y
    torch.testing.assert_close(cloud.positions, torch.stack([mirrored, -x, z + 0.15], dim=-1))


@pytest.mark.parametrize(
    ("frame", "placement"),
    [(OURS, {}), (GLTF, {"up": "y"}), (MODEL, {"turn_deg": 90.0})],
    ids=["ours", "glTF", "the Gaussians of GaussianDreamer and TraCe"],
)
def test_files_and_external_assets(frame, placement, tmp_path):
    """By init=pointcloud, and by what places an external asset."""
    points, colors = cube(**frame)
    trimesh.PointCloud(points, np.uint8(255 * colors)).export(tmp_path / "cube.ply")
    cloud = PlyPoints(str(tmp_path / "cube.ply"), **placement)(RNG)
    is_turned_right(cloud)
    placed, _ = Placement(**placement)(torch.from_numpy(points).float())
    torch.testing.assert_close(placed, cloud.positions)


def test_a_glb_with_its_front_at_plus_z(tmp_path):
    box = trimesh.creation.box((1.0, 1.0, 1.0))
    parts = box.submesh([[i] for i in range(12)], append=False)
    for part in parts:
        normal = part.face_normals[0]
        color = GREEN if normal @ GLTF["front"] > 0.5 else BLUE if normal @ GLTF["right"] > 0.5 else RED
        part.visual.vertex_colors = np.tile(np.uint8([*(255 * color), 255]), (3, 1))
    trimesh.util.concatenate(parts).export(tmp_path / "box.glb")
    is_turned_right(MeshSurface(str(tmp_path / "box.glb"), n=1500, up="y")(RNG))
