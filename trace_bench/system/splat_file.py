"""3D Gaussians as .splat, the format of web viewers: 32 bytes a Gaussian.

float32 x y z; float32 standard deviations x y z; uint8 red green blue opacity; uint8 quaternion w x y z,
where 128 is 0. The positions are those of the .ply. The largest and most opaque Gaussians come first, so that
a viewer shows the shape while it loads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trace_bench.system.errors import TraceBenchError

SH_C0 = 0.28209479177387814  # rgb = 0.5 + SH_C0 * f_dc
SPLAT = np.dtype([
    ("position", "<f4", 3),
    ("scale", "<f4", 3),
    ("rgba", "u1", 4),
    ("rotation", "u1", 4),
])  # fmt: skip


def is_splat_ply(path: Path) -> bool:
    """Whether the header of a .ply names the columns of 3D Gaussians."""
    try:
        with path.open("rb") as file:
            return b"scale_0" in file.read(4096)
    except OSError:
        return False


def splat_of_ply(path: Path) -> bytes:
    """The content of a .splat with the Gaussians of a 3DGS .ply.

    Raises:
        TraceBenchError: the .ply cannot be read, or contains no 3D Gaussians.
    """
    from plyfile import PlyData, PlyParseError

    try:
        vertices = PlyData.read(str(path))["vertex"].data
        means, scales, quats, colors = (
            np.stack([vertices[name].astype(np.float32) for name in names], axis=-1)
            for names in (
                ("x", "y", "z"),
                ("scale_0", "scale_1", "scale_2"),
                ("rot_0", "rot_1", "rot_2", "rot_3"),
                ("f_dc_0", "f_dc_1", "f_dc_2"),
            )
        )
        opacity = vertices["opacity"].astype(np.float32)
    except (OSError, PlyParseError, KeyError, ValueError) as error:
        raise TraceBenchError(f"{path} cannot be read as 3D Gaussians ({error}); use a 3DGS .ply.") from error
    alpha = 1.0 / (1.0 + np.exp(-opacity.clip(-80.0, 80.0)))
    quats = quats / np.linalg.norm(quats, axis=1, keepdims=True).clip(1e-12)
    rows = np.zeros(len(means), SPLAT)
    rows["position"], rows["scale"] = means, np.exp(scales.clip(-80.0, 80.0))
    rgba = np.concatenate([0.5 + SH_C0 * colors, alpha[:, None]], axis=1)
    rows["rgba"] = np.round(rgba.clip(0.0, 1.0) * 255.0)
    rows["rotation"] = np.round(quats * 128.0 + 128.0).clip(0.0, 255.0)
    order = np.argsort(-(scales.sum(axis=1) + np.log(alpha.clip(1e-30))), kind="stable")
    return rows[order].tobytes()
