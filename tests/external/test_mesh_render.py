"""Renders of meshes against shapes with known renders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from trace_bench.cameras import EvaluationRig, make_cameras
from trace_bench.external.mesh import load_mesh
from trace_bench.external.mesh_render import VisibleMesh

RIG = EvaluationRig(n_views=4, elevation_deg=20.0, distance=2.65, fovy_deg=42.5, resolution=48)
WHITE = torch.ones(3)


def visible(mesh, path):
    mesh.export(path)
    return VisibleMesh(load_mesh(path))


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    made = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    colors = np.concatenate([(made.vertices + 0.5) * 255.0, np.full((len(made.vertices), 1), 255)], axis=1)
    made.visual.vertex_colors = colors.clip(0, 255).astype(np.uint8)
    return visible(made, tmp_path_factory.mktemp("ball") / "ball.ply")


def rays(cameras, i):
    """Unit directions [H, W, 3] through the pixels' centres, and the eye."""
    size, focal = cameras.height, float(cameras.Ks[i, 0, 0])
    ticks = torch.arange(size) + 0.5 - 0.5 * size
    y, x = torch.meshgrid(-ticks, ticks, indexing="ij")
    local = torch.stack([x, y, torch.full_like(x, -focal)], dim=-1)
    world = local @ cameras.c2w[i, :3, :3].T
    return torch.nn.functional.normalize(world, dim=-1), cameras.c2w[i, :3, 3]


def test_a_ball_has_the_depth_normals_and_colours_of_a_ball(ball):
    cameras = RIG.cameras()
    render = ball.render(cameras, WHITE, with_normals=True)
    for i in range(len(cameras)):
        direction, eye = rays(cameras, i)
        along = direction @ eye
        inside = along**2 - (eye @ eye - 0.25)
        hit = (inside > 0.02) & (render.alpha[i, ..., 0] == 1.0)
        assert hit.sum() > 150
        assert ((inside > 0.0) == (render.alpha[i, ..., 0] > 0.5)).float().mean() > 0.98
        distance = -along - inside.clamp(min=0.0).sqrt()
        points = eye + distance[..., None] * direction
        forward = -cameras.c2w[i, :3, 2]
        depth = (points - eye) @ forward
        torch.testing.assert_close(render.depth[i, ..., 0][hit], depth[hit], atol=0.02, rtol=0)
        normal = points / 0.5
        assert ((render.normal[i] * normal).sum(dim=-1)[hit] > 0.97).all()
        torch.testing.assert_close(render.rgb[i][hit], (points + 0.5)[hit], atol=0.05, rtol=0)
        assert (render.rgb[i][render.alpha[i, ..., 0] == 0.0] == 1.0).all()


def test_what_is_in_front_hides_what_is_behind(tmp_path):
    """A red plate towards +x, a blue one behind it: red from the front, blue from the back."""
    plates = []
    for x, color in ((0.2, [255, 0, 0, 255]), (-0.2, [0, 0, 255, 255])):
        plate = trimesh.Trimesh(
            [[x, -0.4, -0.4], [x, 0.4, -0.4], [x, 0.4, 0.4], [x, -0.4, 0.4]], [[0, 1, 2], [0, 2, 3]]
        )
        plate.visual.vertex_colors = np.tile(np.array(color, np.uint8), (4, 1))
        plates.append(plate)
    mesh = visible(trimesh.util.concatenate(plates), tmp_path / "plates.ply")
    cameras = make_cameras(0.0, torch.tensor([0.0, 180.0]), 2.65, 42.5, 32, 32)
    render = mesh.render(cameras, torch.zeros(3), with_normals=True)
    centre = render.rgb[:, 16, 16]
    torch.testing.assert_close(centre, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    torch.testing.assert_close(render.normal[:, 16, 16, 0], torch.tensor([1.0, -1.0]))  # towards the camera
    torch.testing.assert_close(render.depth[:, 16, 16, 0], torch.tensor([2.45, 2.45]), atol=1e-4, rtol=0)


def test_edges_are_smooth_and_the_background_each_views_own(ball):
    cameras = RIG.cameras()[0:2]
    render = ball.render(cameras, torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert render.normal is None
    values = set(render.alpha.unique().tolist())
    assert values <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert len(values) > 2
    assert (render.rgb[0, 0, 0] == 0.0).all()
    assert render.rgb[1, 0, 0].tolist() == [0.0, 1.0, 0.0]


def test_nothing_behind_the_camera_is_drawn(tmp_path):
    box = trimesh.creation.box((0.2, 0.2, 0.2))
    box.apply_translation([6.0, 0.0, 0.0])
    cameras = make_cameras(0.0, torch.tensor([0.0]), 2.0, 42.5, 16, 16)
    assert visible(box, tmp_path / "box.ply").render(cameras, WHITE).alpha.max() == 0.0
