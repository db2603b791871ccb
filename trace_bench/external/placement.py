"""Placement of an external object in the world frame: z up, front at +x, centred at the origin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trace_bench.system.errors import TraceBenchError

#: Rows are our axes in the file's axes. y: glTF, y up and front at +z, so (x, y, z) -> (z, x, y).
_FRAMES = {
    "z": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "y": ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}


@dataclass(frozen=True)
class Placement:
    """How to place an object; applied in this order.

    up: the file's upward axis; with z, the front is at +x; with y, the front is at +z.
    turn_deg: rotation around the world's z axis, counter-clockwise seen from above.
    radius: centre the bounding box at the origin and scale into a ball of this radius; None skips this.
    """

    up: str = "z"
    turn_deg: float = 0.0
    radius: float | None = None

    def __post_init__(self) -> None:
        if self.up not in _FRAMES:
            raise TraceBenchError(f"up={self.up!r} is not one of {', '.join(_FRAMES)}.")
        if self.radius is not None and self.radius <= 0.0:
            raise TraceBenchError(f"radius must be above 0 or null, but is {self.radius}.")

    def rotation(self) -> Tensor:
        """[3, 3] float64, from the file's axes to the world frame."""
        turn = math.radians(self.turn_deg)
        about_z = torch.tensor(
            [[math.cos(turn), -math.sin(turn), 0.0], [math.sin(turn), math.cos(turn), 0.0], [0.0, 0.0, 1.0]],
            dtype=torch.float64,
        )
        return about_z @ torch.tensor(_FRAMES[self.up], dtype=torch.float64)

    def __call__(self, positions: Tensor) -> tuple[Tensor, float]:
        """Points [N, 3] in the world frame, in their input dtype, and the scale factor applied."""
        placed = positions.double() @ self.rotation().T
        scale = 1.0
        if self.radius is not None:
            placed = placed - 0.5 * (placed.amin(dim=0) + placed.amax(dim=0))
            furthest = float(placed.norm(dim=-1).max())
            if furthest == 0.0:
                raise TraceBenchError("All points are identical and cannot be scaled; set radius to null.")
            scale = self.radius / furthest
            placed = placed * scale
        return placed.to(positions.dtype), scale

    def place_splats(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gaussians (means [N, 3], quats [N, 4] wxyz, scales [N, 3] log, ...) in the world frame."""
        means, scale = self(params["means"])
        turned = _quaternion(self.rotation()).to(params["quats"])
        return {
            **params,
            "means": means,
            "quats": _multiply(turned, params["quats"]),
            "scales": params["scales"] + math.log(scale),
        }


def _quaternion(rotation: Tensor) -> Tensor:
    """The unit quaternion wxyz [4] of a rotation matrix [3, 3]."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation.numpy()).as_quat()
    return torch.tensor([w, x, y, z], dtype=torch.float64)


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product of wxyz quaternions [4] and [N, 4]."""
    w, v = left[0], left[1:]
    scalar = w * right[:, :1] - (right[:, 1:] * v).sum(dim=-1, keepdim=True)
    vector = w * right[:, 1:] + right[:, :1] * v + torch.linalg.cross(v.expand_as(right[:, 1:]), right[:, 1:])
    return torch.cat([scalar, vector], dim=-1)
