"""3D Gaussians as .ply files for splat viewers (the layout of the original 3DGS code, SH degree 0)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from collections.abc import Mapping

SH_C0 = 0.28209479177387814  # rgb = 0.5 + SH_C0 * f_dc

#: parameter -> its columns in the file; nx ny nz are written as zeros, as in 3DGS
PLY_COLUMNS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "sh0": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacities": ("opacity",),
    "scales": ("scale_0", "scale_1", "scale_2"),
    "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
}


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
    """The Gaussians of a 3DGS .ply in the format of `write_splat_ply`; drops SH bands above degree 0."""
    vertices = read_vertices(path)
    wanted = {name: group for name, group in PLY_COLUMNS.items() if name != "normals"}
    missing = [c for group in wanted.values() for c in group if c not in (vertices.dtype.names or ())]
    if missing:
        raise TraceBenchError(
            f"{path} contains no 3D Gaussians: its vertices lack {', '.join(missing)}; use a 3DGS .ply."
        )
    params = {
        name: torch.from_numpy(np.stack([vertices[c].astype(np.float32) for c in group], axis=-1))
        for name, group in wanted.items()
    }
    params["opacities"] = params["opacities"][:, 0]
    params["sh0"] = params["sh0"][:, None, :]
    return params


def read_vertices(path: Path) -> np.ndarray:
    """The vertex table of any .ply, a structured array [N] with at least x, y, z."""
    from plyfile import PlyData, PlyParseError

    if not path.is_file():
        raise TraceBenchError(f"The file {path} does not exist; use the path of an existing .ply.")
    try:
        elements = {element.name: element.data for element in PlyData.read(str(path))}
    except (PlyParseError, UnicodeDecodeError, ValueError) as error:
        raise TraceBenchError(f"{path} cannot be read as .ply ({error}); use a valid .ply file.") from error
    vertices = elements.get("vertex")
    if vertices is None or len(vertices) == 0 or not {"x", "y", "z"} <= set(vertices.dtype.names or ()):
        raise TraceBenchError(f"{path} has no vertices with x, y and z; use a .ply of points or a mesh.")
    return vertices
