"""Inits: random ball, sphere, point cloud from a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from trace_bench.inits.base import seconds_of
from trace_bench.inits.none import NoInit
from trace_bench.inits.pointcloud import PlyPoints
from trace_bench.inits.random import RandomBall
from trace_bench.inits.sphere import Sphere
from trace_bench.representations.gaussians.gaussians import Gaussians
from trace_bench.representations.gaussians.ply import write_splat_ply
from trace_bench.representations.points import PointCloud
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError

RNG = Rng(3).at(-1)


def write(path, columns, faces=False):
    """A .ply with these vertex columns; values [N]."""
    n = len(next(iter(columns.values())))
    vertices = np.empty(n, dtype=[(name, np.asarray(values).dtype) for name, values in columns.items()])
    for name, values in columns.items():
        vertices[name] = values
    elements = [PlyElement.describe(vertices, "vertex")]
    if faces:
        table = np.array([([0, 1, 2],)], dtype=[("vertex_indices", "i4", (3,))])
        elements.append(PlyElement.describe(table, "face"))
    PlyData(elements, text=True).write(str(path))
    return str(path)


def xyz(n=5):
    values = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    return {"x": values[:, 0], "y": values[:, 1], "z": values[:, 2]}


def test_random_ball_is_uniform():
    cloud = RandomBall(n=20_000, radius=0.8, color_spread=0.1)(RNG)
    distance = cloud.positions.norm(dim=-1)
    assert distance.max() <= 0.8 + 1e-6
    assert (distance < 0.4).float().mean() == pytest.approx(1 / 8, abs=0.01)  # an eighth of the volume
    assert cloud.positions.mean(dim=0).abs().max() < 0.02
    assert 0.4 <= cloud.colors.min() < 0.41
    assert 0.59 < cloud.colors.max() <= 0.6


def test_sphere_is_even():
    cloud = Sphere(n=1000, radius=0.5)(RNG)
    torch.testing.assert_close(cloud.positions.norm(dim=-1), torch.full((1000,), 0.5))
    assert cloud.positions.mean(dim=0).abs().max() < 1e-3
    nearest = torch.cdist(cloud.positions, cloud.positions).fill_diagonal_(9.0).amin(dim=-1)
    assert nearest.max() < 2.0 * nearest.min()


@pytest.mark.parametrize("init", [RandomBall(n=10), Sphere(n=10)])
def test_the_run_s_seed_decides(init):
    first, again, other = init(Rng(0).at(-1)), init(Rng(0).at(-1)), init(Rng(1).at(-1))
    assert torch.equal(first.positions, again.positions)
    assert torch.equal(first.colors, again.colors)
    assert not torch.equal(first.colors, other.colors)


@pytest.mark.parametrize("kind", [RandomBall, Sphere])
@pytest.mark.parametrize("wrong", [{"n": 0}, {"radius": 0.0}, {"color_spread": 0.7}])
def test_wrong_settings_are_refused(kind, wrong):
    with pytest.raises(TraceBenchError, match=next(iter(wrong))):
        kind(**wrong)


def test_point_clouds_are_checked():
    for positions, colors, word in (
        (torch.zeros(3, 2), torch.zeros(3, 2), "positions"),
        (torch.zeros(3, 3), torch.zeros(2, 3), "as many colors"),
        (torch.zeros(0, 3), torch.zeros(0, 3), "at least one"),
        (torch.full((1, 3), float("nan")), torch.zeros(1, 3), "NaN"),
    ):
        with pytest.raises(TraceBenchError, match=word):
            PointCloud(positions, colors)


def test_ply_with_byte_colours_of_a_mesh(tmp_path):
    columns = {**xyz(), "red": np.array([255, 0, 0, 51, 0], np.uint8)}
    columns |= {"green": np.zeros(5, np.uint8), "blue": np.full(5, 255, np.uint8)}
    cloud = PlyPoints(write(tmp_path / "mesh.ply", columns, faces=True))(RNG)
    torch.testing.assert_close(cloud.positions[:, 0], torch.from_numpy(columns["x"]))
    torch.testing.assert_close(cloud.colors[0], torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(cloud.colors[3], torch.tensor([0.2, 0.0, 1.0]))


def test_ply_with_float_colours_and_without(tmp_path):
    columns = {**xyz(), "red": np.full(5, 0.25, np.float32)}
    columns |= {"green": np.ones(5, np.float32), "blue": np.zeros(5, np.float32)}
    cloud = PlyPoints(write(tmp_path / "float.ply", columns))(RNG)
    torch.testing.assert_close(cloud.colors, torch.tensor([0.25, 1.0, 0.0]).expand(5, 3))
    assert (PlyPoints(write(tmp_path / "grey.ply", xyz()))(RNG).colors == 0.5).all()


@pytest.fixture
def splats():
    torch.manual_seed(0)
    return {
        "means": torch.randn(40, 3), "quats": torch.randn(40, 4), "scales": torch.randn(40, 3),
        "opacities": torch.randn(40), "sh0": torch.tensor([0.5, 0.0, -9.0]).expand(40, 1, 3),
    }  # fmt: skip


def test_ply_of_gaussians_as_points(tmp_path, splats):
    cloud = PlyPoints(str(write_splat_ply(tmp_path / "splat.ply", splats)), keep_splats=False)(RNG)
    assert torch.equal(cloud.positions, splats["means"])
    torch.testing.assert_close(cloud.colors[0], torch.tensor([0.5 + 0.5 * 0.28209479, 0.5, 0.0]))
    assert cloud.splats is None


def test_ply_of_gaussians_goes_on_as_gaussians(tmp_path, splats):
    """Sizes, rotations and opacities come from the file, also for a subset of points."""
    path = str(write_splat_ply(tmp_path / "splat.ply", splats))
    cloud = PlyPoints(path)(RNG)
    made = Gaussians(cloud, 64, (4, 8, 8), 0, "cpu").params
    assert torch.equal(made["means"], splats["means"])
    for name in ("scales", "opacities", "sh0"):
        torch.testing.assert_close(made[name].detach(), splats[name])
    torch.testing.assert_close(
        made["quats"].detach(), torch.nn.functional.normalize(splats["quats"], dim=-1), rtol=1e-5, atol=1e-6
    )
    some = PlyPoints(path, max_points=7)(RNG)
    kept = [int((splats["means"] == position).all(dim=-1).nonzero()) for position in some.positions]
    assert len(set(kept)) == 7
    torch.testing.assert_close(some.splats["scales"], splats["scales"][kept])
    grown = PlyPoints(path, radius=1.0, up="y")(RNG)
    assert grown.positions.norm(dim=-1).max() == pytest.approx(1.0)
    assert torch.equal(grown.splats["means"], grown.positions)


def test_the_declared_time_is_the_runs(tmp_path):
    path = write(tmp_path / "cloud.ply", xyz())
    cloud = PlyPoints(path, minutes=0.25)(RNG)
    assert cloud.seconds == 15.0
    assert cloud.notes == {"file": "cloud.ply"}
    with pytest.raises(TraceBenchError, match=r"init\.minutes must be a number of at least 0, but is -1"):
        seconds_of(-1)


def test_no_start():
    assert NoInit()(RNG) is None
    assert NoInit.gives_points is False


def test_radius_and_subset(tmp_path):
    path = write(tmp_path / "cloud.ply", {name: 100.0 + 7.0 * value for name, value in xyz(50).items()})
    cloud = PlyPoints(path, radius=0.6)(RNG)
    assert cloud.positions.norm(dim=-1).max() == pytest.approx(0.6)
    torch.testing.assert_close(cloud.positions.amin(0), -cloud.positions.amax(0), rtol=1e-3, atol=1e-4)
    some = PlyPoints(path, max_points=20)(RNG)
    assert len(some) == 20
    assert len(torch.unique(some.positions, dim=0)) == 20
    assert len(PlyPoints(path, max_points=99)(RNG)) == 50


def test_files_that_will_not_do(tmp_path):
    (tmp_path / "text.ply").write_text("this is not a ply")
    header = b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nend_header\n"
    (tmp_path / "binary.ply").write_bytes(header)  # and no data
    columns = "property int x\nproperty int y\nproperty int z\nend_header\n"
    (tmp_path / "overflow.ply").write_text(
        f"ply\nformat ascii 1.0\nelement vertex 1\n{columns}1 2 {10**20}\n"
    )
    write(tmp_path / "flat.ply", {"x": np.zeros(2, np.float32), "y": np.zeros(2, np.float32)})
    write(tmp_path / "empty.ply", xyz(0))
    write(tmp_path / "point.ply", {"x": np.ones(2), "y": np.ones(2), "z": np.ones(2)})
    for name, options, word in (
        ("missing.ply", {}, "does not exist"),
        ("text.ply", {}, "cannot be read"),
        ("binary.ply", {}, "cannot be read"),
        ("overflow.ply", {}, "cannot be read"),
        ("flat.ply", {}, "no vertices with x, y and z"),
        ("empty.ply", {}, "no vertices"),
        ("point.ply", {"radius": 1.0}, "are identical"),
    ):
        with pytest.raises(TraceBenchError, match=word):
            PlyPoints(str(tmp_path / name), **options)(RNG)


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [
        ("opacities", float("inf"), "opacity is infinite in 1 of 40 rows"),
        ("scales", float("-inf"), "scale_0 is infinite in 1 of 40 rows; scale_1"),
        ("quats", 0.0, "rot_0, rot_1, rot_2, rot_3 are all 0 in 1 of 40 rows"),
    ],
)
def test_bad_rows_of_gaussians_are_named(tmp_path, splats, column, value, word):
    splats[column][3] = value
    path = write_splat_ply(tmp_path / "bad.ply", splats)
    with pytest.raises(TraceBenchError, match=rf"bad\.ply: {word}"):
        PlyPoints(str(path))(RNG)
    assert len(PlyPoints(str(path), keep_splats=False)(RNG)) == 40  # only centres and colours are used


def test_bad_positions_of_points_are_named(tmp_path):
    columns = xyz(9)
    columns["y"][2:4] = np.nan
    with pytest.raises(TraceBenchError, match=r"bad\.ply: y is NaN or infinite in 2 of 9 rows"):
        PlyPoints(write(tmp_path / "bad.ply", columns))(RNG)
    columns["y"] = np.full(9, 1e300)  # a double beyond float32
    with pytest.raises(TraceBenchError, match=r"y is NaN or infinite in 9 of 9 rows"):
        PlyPoints(write(tmp_path / "bad.ply", columns))(RNG)


def test_2d_gaussians_and_incomplete_ones_are_not_points(tmp_path, splats):
    path = write_splat_ply(tmp_path / "splat.ply", splats)
    table = PlyData.read(str(path))["vertex"].data
    for dropped, word in (
        ("scale_2", r"contains 2D Gaussians \(scale_0 and scale_1 without"),
        ("opacity", "lack opacity"),
    ):
        columns = {name: np.asarray(table[name]) for name in table.dtype.names if name != dropped}
        flat = write(tmp_path / "flat.ply", columns)
        with pytest.raises(TraceBenchError, match=word):
            PlyPoints(flat)(RNG)
        assert PlyPoints(flat, keep_splats=False)(RNG).splats is None


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.uint8, 255), (np.uint16, 65535), (np.uint16, 255), (np.int32, 255), (np.float32, 255)],
)
def test_ply_colours_of_every_type(tmp_path, dtype, scale):
    columns = xyz()
    for name, value in (("Red", 1.0), ("Green", 0.2), ("Blue", 0.0)):
        columns[name] = np.full(5, round(value * scale), dtype)
    cloud = PlyPoints(write(tmp_path / "x.ply", columns))(RNG)
    torch.testing.assert_close(cloud.colors, torch.tensor([1.0, 0.2, 0.0]).expand(5, 3))
