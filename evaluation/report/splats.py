"""3D Gaussians as .splat: 32 bytes each, in the layout that web viewers read.

Little-endian: position (3 float32), standard deviations (3 float32), RGB and opacity (4 uint8), quaternion
wxyz (4 uint8, 128 + 128 q).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trace_bench.system.errors import TraceBenchError

SH_C0 = 0.28209479177387814  # rgb = 0.5 + SH_C0 * f_dc
RECORD = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quaternion", "u1", 4)])


def is_splat_ply(path: Path) -> bool:
    """Whether the header of a .ply names the columns of 3D Gaussians."""
    try:
        with path.open("rb") as file:
            return b"scale_0" in file.read(4096)
    except OSError:
        return False


def splat_bytes(path: Path) -> bytes:
    """The Gaussians of a 3DGS .ply as .splat, the largest and most opaque first, as viewers load them.

    Raises: TraceBenchError if the file cannot be read as Gaussians.
    """
    from plyfile import PlyData

    try:
        vertex = PlyData.read(str(path))["vertex"].data
        columns = {name: np.asarray(vertex[name], np.float32) for name in vertex.dtype.names}
        position, log_scale, colour, quaternion = (
            np.stack([columns[name] for name in names], axis=1)
            for names in (
                ("x", "y", "z"),
                ("scale_0", "scale_1", "scale_2"),
                ("f_dc_0", "f_dc_1", "f_dc_2"),
                ("rot_0", "rot_1", "rot_2", "rot_3"),
            )
        )
        opacity = 1.0 / (1.0 + np.exp(-columns["opacity"]))
    except Exception as error:  # plyfile raises whatever it meets
        raise TraceBenchError(f"{path} cannot be read as 3D Gaussians ({error}).") from error
    order = np.argsort(-(log_scale.sum(axis=1) + np.log(np.maximum(opacity, 1e-9))), kind="stable")
    found = np.zeros(len(order), RECORD)
    found["position"], found["scale"] = position[order], np.exp(log_scale[order])
    rgba = np.concatenate([0.5 + SH_C0 * colour, opacity[:, None]], axis=1)
    found["rgba"] = np.round(np.clip(rgba[order], 0.0, 1.0) * 255.0)
    unit = quaternion / np.maximum(np.linalg.norm(quaternion, axis=1, keepdims=True), 1e-12)
    found["quaternion"] = np.clip(np.round(unit[order] * 128.0 + 128.0), 0, 255)
    return found.tobytes()
