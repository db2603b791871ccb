"""Toy-world scenes: distances, normals, depth, surface points, light, and size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trace_bench.cameras import EvaluationRig, make_cameras
from trace_bench.toyworld import Caption, all_captions, scene_from_prompt
from trace_bench.toyworld.captions import parse
from trace_bench.toyworld.objects import OBJECTS
from trace_bench.toyworld.scene import Scene, _fit
from trace_bench.toyworld.shapes import COLORS, SOLIDS

OF_OBJECTS = {name: Caption(name, "blue" if item.colored else None).text for name, item in OBJECTS.items()}
EVERYTHING = [Caption(name, "blue").text for name in SOLIDS] + list(OF_OBJECTS.values())
WITH_FRONT = [text for name, text in OF_OBJECTS.items() if OBJECTS[name].has_front]
SOME = [
    "a red sphere",
    "a blue pyramid",
    "a green star",
    "a penguin",
    "a yellow house",
    "a red torus on a blue sphere",
]


def unproject(cameras, depth):
    """World points [B, H, W, 3] of pixel centres at camera-z depth [B, H, W, 1]."""
    height, width = depth.shape[1:3]
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    focal = cameras.Ks[:, 0, 0].view(-1, 1, 1)
    local = torch.stack(
        [(u - 0.5 * width) / focal, (0.5 * height - v) / focal, -torch.ones_like(focal + u)], -1
    )
    points = local * depth
    return torch.einsum("bij,bhwj->bhwi", cameras.c2w[:, :3, :3], points) + cameras.c2w[:, None, None, :3, 3]


@pytest.mark.parametrize("prompt", EVERYTHING)
def test_scenes_are_centred_and_fill_the_ball(prompt):
    points, colors, normals = scene_from_prompt(prompt).surface_points(4000, seed=1)
    low, high = points.min(0).values, points.max(0).values
    assert points.norm(dim=1).max() < 0.8
    assert (0.5 * (low + high)).abs().max() < 0.03
    assert (high - low).max() > 0.9  # a cube in a ball of 0.8 has this side; all else is longer
    assert colors.min() >= 0.0
    assert colors.max() <= 1.0
    assert torch.allclose(normals.norm(dim=1), torch.ones(len(normals)), atol=1e-4)


@pytest.mark.parametrize("prompt", SOME)
def test_normals_are_the_gradient_of_the_distance(prompt):
    scene, step = scene_from_prompt(prompt), 1e-4
    points, _, normals = (x.numpy().astype(np.float64) for x in scene.surface_points(300))
    gradient = np.stack(
        [scene.distance(points + step * e) - scene.distance(points - step * e) for e in np.eye(3)], axis=1
    )
    length = np.linalg.norm(gradient, axis=1)
    cosine = (gradient * normals).sum(1) / length
    # Points on a crease or an edge have no gradient.
    assert (cosine > 0.999).mean() > 0.95
    assert (np.abs(scene.distance(points)) < 1e-5).all()


def test_a_sphere_is_exact():
    scene = scene_from_prompt("a red sphere")
    radius = 0.75
    points, _, normals = scene.surface_points(2000)
    assert torch.allclose(points.norm(dim=1), torch.full((2000,), radius), atol=5e-3)
    assert torch.allclose(normals, points / points.norm(dim=1, keepdim=True), atol=1e-3)
    camera = make_cameras(0.0, 0.0, 2.65, 42.5, 65, 65)  # odd: one pixel looks at the origin
    seen = scene.render(camera)
    assert seen.depth[0, 32, 32, 0].item() == pytest.approx(2.65 - radius, abs=5e-3)
    edge = np.degrees(np.arcsin(radius / 2.65))
    expected = np.pi * (np.tan(np.radians(edge)) * camera.Ks[0, 0, 0].item()) ** 2
    assert seen.alpha.sum().item() == pytest.approx(expected, rel=0.01)


def test_the_number_of_cores_does_not_change_a_scene(monkeypatch):
    """A scene is fitted by its surface points, so its pictures would change with them."""
    found = []
    for cores in (1, 3):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        _fit.cache_clear()
        scene = Scene(parse("a duck")[0])
        found.append((scene.parts, scene.surface_points(500)))
    (parts, points), (other_parts, other_points) = found
    assert repr(parts) == repr(other_parts)
    assert all(torch.equal(a, b) for a, b in zip(points, other_points, strict=True))


def test_surface_points_are_uniform_in_area():
    """Equal bands of a sphere's height have equal areas (Archimedes)."""
    points, _, _ = scene_from_prompt("a red sphere").surface_points(20_000, seed=3)
    counts = torch.histc(points[:, 2], bins=10, min=-0.75, max=0.75)
    assert (counts / counts.mean() - 1.0).abs().max() < 0.1
    again, _, _ = scene_from_prompt("a red sphere").surface_points(20_000, seed=3)
    assert torch.equal(points, again)


@pytest.mark.parametrize("prompt", [p for p in EVERYTHING if p != "a blue sphere"])
def test_depth_lies_on_the_surface_and_normals_face_the_camera(prompt):
    scene, cameras = scene_from_prompt(prompt), EvaluationRig(n_views=3, resolution=32).cameras()
    seen = scene.render(cameras)
    inside = seen.alpha[..., 0] == 1.0
    points = unproject(cameras, seen.depth)[inside]
    assert inside.sum() > 60
    # A silhouette pixel can be covered although its centre ray missed; its depth is then a mean.
    assert (np.abs(scene.distance(points.numpy())) < 2e-3).mean() > 0.99
    towards = cameras.c2w[:, None, None, :3, 3] - unproject(cameras, seen.depth)
    facing = (torch.nn.functional.normalize(towards, dim=-1) * seen.normal).sum(-1)[inside]
    assert facing.min() > -0.05
    empty = seen.alpha[..., 0] == 0.0
    assert (seen.depth[empty] == 0.0).all()
    assert (seen.normal[empty] == 0.0).all()


def test_background_shows_through_and_edges_are_soft():
    scene, cameras = scene_from_prompt("a red sphere"), EvaluationRig(n_views=2).cameras()
    white = scene.render(cameras)
    blue = scene.render(cameras, torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    assert torch.allclose(blue.rgb[0, 0, 0], torch.tensor([0.0, 0.0, 1.0]))
    assert torch.allclose(blue.rgb[1, 0, 0], torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(white.rgb[0, 32, 32], blue.rgb[0, 32, 32])
    partial = (white.alpha > 0.0) & (white.alpha < 1.0)
    assert 40 < partial[0].sum() < 400
    assert 0.0 <= white.rgb.min() <= white.rgb.max() <= 1.0


def test_a_surface_point_looks_the_same_from_everywhere():
    """Light is fixed in the world and has no highlights: the top of a sphere, seen from two sides."""
    scene = scene_from_prompt("a green sphere")
    cameras = make_cameras(60.0, torch.tensor([0.0, 120.0]), 2.65, 42.5, 65, 65)
    top = torch.tensor([0.0, 0.0, 0.75, 1.0])
    colors = []
    for i in range(2):
        local = cameras.viewmats[i] @ top
        u, v = (cameras.Ks[i] @ local[:3])[:2] / local[2]
        colors.append(scene.render(cameras[i : i + 1]).rgb[0, int(v), int(u)])
    assert (colors[0] - colors[1]).abs().max() < 0.02


def test_colours_stay_nearest_to_their_own_name_in_light_and_shade():
    names = list(COLORS)
    chroma = torch.tensor([COLORS[name] for name in names])
    cameras = EvaluationRig(n_views=6).cameras()
    for name in names:
        seen = scene_from_prompt(Caption("cube", name).text).render(cameras)
        mean = seen.rgb[seen.alpha[..., 0] == 1.0].mean(0)
        distances = (chroma * 0.8 - mean).norm(dim=1)
        assert names[int(distances.argmin())] == name


@pytest.mark.parametrize("prompt", WITH_FRONT)
def test_objects_with_a_front_differ_from_behind(prompt):
    """Front and back must not be mirror images, or the Janus problem would be invisible."""
    scene = scene_from_prompt(prompt)
    cameras = make_cameras(15.0, torch.tensor([0.0, 180.0]), 2.65, 42.5, 64, 64)
    seen = scene.render(cameras, (0.5, 0.5, 0.5)).rgb
    # The difference in light between front and back, measured on a plain sphere, is not a face.
    front, back = seen[0], seen[1].flip(1)
    inside = scene.render(cameras).alpha[0, ..., 0] > 0
    hue = [x / x.sum(-1, keepdim=True).clamp(min=0.05) for x in (front, back)]
    changed = ((hue[0] - hue[1]).abs().max(-1).values > 0.08) & inside
    silhouette = (scene.render(cameras).alpha[0] - scene.render(cameras).alpha[1].flip(1)).abs().mean()
    assert changed.float().sum() / inside.sum() > 0.02 or silhouette > 0.02


def test_there_is_enough_of_everything():
    assert len(SOLIDS) >= 8
    assert len(COLORS) >= 8
    assert len(OBJECTS) >= 10
    assert sum(item.has_front for item in OBJECTS.values()) >= 4
    assert sum(c.kind == "composition" for c in all_captions()) > 100


def test_fitting_depends_on_the_shape_alone():
    red, blue = (scene_from_prompt(f"a {c} mushroom") for c in ("red", "blue"))
    assert [p.at for p in red.parts] == [p.at for p in blue.parts]
