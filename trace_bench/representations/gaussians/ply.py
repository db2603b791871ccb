"""3D Gaussians as .ply files for splat viewers (the layout of the original 3DGS code, SH degree 0)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trace_bench.representations.splat_values import PLY_COLUMNS, VALUE_COLUMNS, splat_problem
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from collections.abc import Mapping


def write_splat_ply(path: Path, params: Mapping[str, Tensor]) -> Path:
    """Write Gaussians as binary little-endian float32.

    params: means [N, 3], quats [N, 4] wxyz, scales [N, 3] (log), opacities [N] (logit), sh0 [N, 1, 3].
        Quaternions are normalised.
    """
    from plyfile import PlyData, PlyElement

    n = len(params["means"])
    unit = torch.nn.functional.normalize(params["quats"], dim=-1)
    values = {**params, "normals": torch.zeros(n, 3), "quats": unit}
    columns = [column for group in PLY_COLUMNS.values() for column in group]
    vertices = np.empty(n, dtype=[(column, "<f4") for column in columns])
    for name, group in PLY_COLUMNS.items():
        table = values[name].detach().float().cpu().reshape(n, len(group)).numpy()
        for i, column in enumerate(group):
            vertices[column] = table[:, i]
    path.parent.mkdir(parents=True, exist_ok=True)
    PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<").write(str(path))
    return path


def read_splat_ply(path: Path) -> dict[str, Tensor]:
    """The Gaussians of a 3DGS .ply in the format of `write_splat_ply`; drops SH bands above degree 0.

    Raises: TraceBenchError if a column is missing, or a row has a value that `splat_problem` refuses.
    """
    vertices = read_vertices(path)
    names = set(vertices.dtype.names or ())
    missing = [c for group in VALUE_COLUMNS.values() for c in group if c not in names]
    if missing == ["scale_2"]:
        raise TraceBenchError(
            f"{path} contains 2D Gaussians (scale_0 and scale_1 without scale_2), which are not supported; "
            "export 3D Gaussians, or start from their centres with init.keep_splats=false."
        )
    if missing:
        raise TraceBenchError(
            f"{path} contains no 3D Gaussians: its vertices lack {', '.join(missing)}; use a 3DGS .ply."
        )
    params = {name: torch.from_numpy(_table(vertices, group)) for name, group in VALUE_COLUMNS.items()}
    params["opacities"] = params["opacities"][:, 0]
    params["sh0"] = params["sh0"][:, None, :]
    if problem := splat_problem(params):
        raise TraceBenchError(f"{path}: {problem}; remove these rows or export the file again.")
    return params


def is_splat(vertices: np.ndarray) -> bool:
    """Whether a vertex table means Gaussians, even if columns are missing; colours alone do not."""
    columns = {*VALUE_COLUMNS["scales"], *VALUE_COLUMNS["quats"]}
    return not columns.isdisjoint(vertices.dtype.names or ())


def finite_table(path: Path, vertices: np.ndarray, columns: tuple[str, ...]) -> np.ndarray:
    """Columns of the vertex table of `path` as float32 [N, len(columns)]; refuses NaN and infinity."""
    table = _table(vertices, columns)
    bad = (~np.isfinite(table)).sum(axis=0)
    if bad.any():
        found = "; ".join(
            f"{column} is NaN or infinite in {rows} of {len(table)} rows"
            for column, rows in zip(columns, bad, strict=True)
            if rows
        )
        raise TraceBenchError(f"{path}: {found}; remove these rows or export the file again.")
    return table


def _table(vertices: np.ndarray, columns: tuple[str, ...]) -> np.ndarray:
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused
        return np.stack([vertices[column].astype(np.float32) for column in columns], axis=-1)


def read_vertices(path: Path) -> np.ndarray:
    """The vertex table of any .ply, a structured array [N] with at least x, y, z."""
    from plyfile import PlyData, PlyParseError

    if not path.is_file():
        raise TraceBenchError(f"The file {path} does not exist; use the path of an existing .ply.")
    try:
        elements = {element.name: element.data for element in PlyData.read(str(path))}
    except (PlyParseError, UnicodeDecodeError, ValueError, OverflowError, MemoryError) as error:
        raise TraceBenchError(f"{path} cannot be read as .ply ({error}); use a valid .ply file.") from error
    vertices = elements.get("vertex")
    if vertices is None or len(vertices) == 0 or not {"x", "y", "z"} <= set(vertices.dtype.names or ()):
        raise TraceBenchError(f"{path} has no vertices with x, y and z; use a .ply of points or a mesh.")
    return vertices
