"""The .ply that splat viewers open."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from trace_bench.representations.gaussians.ply import read_splat_ply, write_splat_ply
from trace_bench.system.errors import TraceBenchError


def gaussians(n=7):
    rng = torch.Generator().manual_seed(0)
    shapes = {"means": (n, 3), "quats": (n, 4), "scales": (n, 3), "opacities": (n,), "sh0": (n, 1, 3)}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def test_header_is_that_of_3dgs(tmp_path):
    path = write_splat_ply(tmp_path / "deep" / "asset.ply", gaussians())
    header = path.read_bytes().split(b"end_header\n")[0].decode().splitlines()
    names = [*("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")]
    names += [*("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")]
    assert header[:2] == ["ply", "format binary_little_endian 1.0"]
    assert header[2] == "element vertex 7"
    assert header[3:] == [f"property float {name}" for name in names]


def test_values_are_where_viewers_look_for_them(tmp_path):
    params = gaussians()
    data = PlyData.read(str(write_splat_ply(tmp_path / "a.ply", params)))["vertex"].data
    assert np.array_equal(data["y"], params["means"][:, 1].numpy())
    assert np.array_equal(data["scale_2"], params["scales"][:, 2].numpy())  # log
    assert np.array_equal(data["opacity"], params["opacities"].numpy())  # logit
    assert np.array_equal(data["f_dc_0"], params["sh0"][:, 0, 0].numpy())
    unit = params["quats"] / params["quats"].norm(dim=-1, keepdim=True)
    assert np.allclose(data["rot_0"], unit[:, 0].numpy())  # w first
    assert np.allclose(sum(data[f"rot_{i}"] ** 2 for i in range(4)), 1.0)
    assert not data["nx"].any()


def test_round_trip(tmp_path):
    params = gaussians()
    params["quats"] = torch.nn.functional.normalize(params["quats"], dim=-1)
    again = read_splat_ply(write_splat_ply(tmp_path / "a.ply", params))
    assert set(again) == set(params)
    for name, value in params.items():
        torch.testing.assert_close(again[name], value, rtol=1e-6, atol=1e-7)


def test_a_point_cloud_holds_no_gaussians(tmp_path):
    table = np.zeros(2, dtype=[(name, "f4") for name in "xyz"])
    PlyData([PlyElement.describe(table, "vertex")]).write(str(tmp_path / "points.ply"))
    with pytest.raises(TraceBenchError, match="contains no 3D Gaussians"):
        read_splat_ply(tmp_path / "points.ply")


@pytest.mark.parametrize(
    "layout", ["ascii", "big-endian", "doubles", "extra columns", "no normals", "sh3", "sorted"]
)
def test_every_layout_of_published_tools_is_read_alike(tmp_path, layout):
    params = gaussians()
    given = read_splat_ply(write_splat_ply(tmp_path / "a.ply", params))
    table = PlyData.read(str(tmp_path / "a.ply"))["vertex"].data
    columns = {name: np.asarray(table[name]) for name in table.dtype.names}
    more = {"extra columns": ["filter_3D", "segment"], "sh3": [f"f_rest_{i}" for i in range(45)]}.get(
        layout, []
    )
    columns |= {name: np.full(len(table), 0.1, np.float32) for name in more}
    if layout == "no normals":
        columns = {name: values for name, values in columns.items() if name not in ("nx", "ny", "nz")}
    names = sorted(columns) if layout == "sorted" else list(columns)
    kind = "f8" if layout == "doubles" else "f4"
    other = np.empty(len(table), dtype=[(name, kind) for name in names])
    for name in names:
        other[name] = columns[name]
    order = ">" if layout == "big-endian" else "<"
    file = PlyData([PlyElement.describe(other, "vertex")], text=layout == "ascii", byte_order=order)
    file.write(str(tmp_path / "b.ply"))
    again = read_splat_ply(tmp_path / "b.ply")
    for name, value in given.items():
        torch.testing.assert_close(again[name], value, rtol=1e-6, atol=1e-7)


def test_bad_rows_are_named_with_file_and_column(tmp_path):
    params = gaussians()
    params["scales"][2:4, 1] = float("nan")
    with pytest.raises(TraceBenchError, match=r"a\.ply: scale_1 is NaN in 2 of 7 rows; remove these rows"):
        read_splat_ply(write_splat_ply(tmp_path / "a.ply", params))
