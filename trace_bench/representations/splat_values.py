"""Which values 3D Gaussians may have, whatever file or init they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

#: parameter -> its columns in a 3DGS .ply; nx ny nz are written as zeros, as in 3DGS
PLY_COLUMNS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "sh0": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacities": ("opacity",),
    "scales": ("scale_0", "scale_1", "scale_2"),
    "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
VALUE_COLUMNS = {name: columns for name, columns in PLY_COLUMNS.items() if name != "normals"}

LARGEST = 1e12  # of every value except the scales; squares stay within float32
LARGEST_LOG_SCALE = 30.0
LARGEST_RELATIVE_SCALE = 1000.0  # standard deviation, relative to the diagonal of the cloud's bounding box
SMALLEST_QUATERNION = 1e-8


def splat_problem(params: Mapping[str, Tensor]) -> str | None:
    """What is wrong with Gaussians, as "<column> is NaN in <n> of <N> rows; ..."; None if all are usable.

    params: means [N, 3], quats [N, 4] wxyz, scales [N, 3] (log), opacities [N] (logit), sh0 [N, 1, 3].
    A scale is too large above 1000 diagonals of the cloud; published files stay far below.
    """
    n = len(params["means"])
    table = torch.cat([params[name].detach().reshape(n, -1).float() for name in VALUE_COLUMNS], dim=1)
    columns = [column for group in VALUE_COLUMNS.values() for column in group]
    limit = torch.full((len(columns),), LARGEST, device=table.device)
    is_scale = torch.tensor([column in VALUE_COLUMNS["scales"] for column in columns], device=table.device)
    log_scale = _largest_log_scale(params["means"])
    beyond = torch.where(is_scale, table > log_scale, table.abs() > limit) & table.isfinite()
    counts = {
        "NaN": table.isnan().sum(dim=0).tolist(),
        "infinite": table.isinf().sum(dim=0).tolist(),
        f"too large (above {log_scale:.3g})": (beyond & is_scale).sum(dim=0).tolist(),
        "too large": (beyond & ~is_scale).sum(dim=0).tolist(),
    }
    clauses = [
        f"{column} is {what} in {rows[i]} of {n} rows"
        for i, column in enumerate(columns)
        for what, rows in counts.items()
        if rows[i]
    ]
    length = params["quats"].detach().float().norm(dim=-1)
    if flat := int((length < SMALLEST_QUATERNION).sum()):
        clauses.append(f"{', '.join(VALUE_COLUMNS['quats'])} are all 0 in {flat} of {n} rows")
    return "; ".join(clauses) or None


def _largest_log_scale(means: Tensor) -> float:
    """The largest usable scale (log) in a cloud with these centres [N, 3]."""
    means = means.detach().float()
    diagonal = float((means.amax(dim=0) - means.amin(dim=0)).norm())
    if not 0.0 < diagonal < math.inf:
        return LARGEST_LOG_SCALE
    return min(LARGEST_LOG_SCALE, math.log(LARGEST_RELATIVE_SCALE * diagonal))
