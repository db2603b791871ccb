"""EWA projection of 3D Gaussians to the screen, and its gradient (gsplat's pinhole projection).

For one Gaussian and one camera: p = R m + t, V = R Rot(q) diag(s), A = J V with J the Jacobian of the
perspective division (its x/z and y/z clamped to 1.3 times the field of view), cov2d = A A^T + eps2d I.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trace_bench.representations.splat_cpu.jit import kernel

ALPHA_THRESHOLD = 1.0 / 255.0  # a Gaussian is not drawn where its alpha is lower
MAX_EXTENT = 3.33  # standard deviations
MAX_RADIUS = 1e9  # pixels; fits into an int32


@kernel
def _rotation(q, rot):
    """Rotation of the unit quaternion wxyz -> rot [3, 3]; returns 1 / |q|."""
    inv = 1.0 / math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    w, x, y, z = q[0] * inv, q[1] * inv, q[2] * inv, q[3] * inv
    rot[0, 0], rot[0, 1], rot[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    rot[1, 0], rot[1, 1], rot[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    rot[2, 0], rot[2, 1], rot[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return inv


@kernel
def _rotation_vjp(q, inv, v_rot, v_q):
    """Gradient of `_rotation`: v_rot [3, 3] -> v_q [4], through the normalisation."""
    w, x, y, z = q[0] * inv, q[1] * inv, q[2] * inv, q[3] * inv
    v = v_rot
    yz, zx, xy = v[2, 1] + v[1, 2], v[0, 2] + v[2, 0], v[1, 0] + v[0, 1]  # symmetric parts
    wx, wy, wz = v[2, 1] - v[1, 2], v[0, 2] - v[2, 0], v[1, 0] - v[0, 1]  # antisymmetric parts
    v_w = 2 * (x * wx + y * wy + z * wz)
    v_x = 2 * (w * wx + y * xy + z * zx - 2 * x * (v[1, 1] + v[2, 2]))
    v_y = 2 * (w * wy + x * xy + z * yz - 2 * y * (v[0, 0] + v[2, 2]))
    v_z = 2 * (w * wz + x * zx + y * yz - 2 * z * (v[0, 0] + v[1, 1]))
    along = v_w * w + v_x * x + v_y * y + v_z * z
    v_q[0], v_q[1] = (v_w - along * w) * inv, (v_x - along * x) * inv
    v_q[2], v_q[3] = (v_y - along * y) * inv, (v_z - along * z) * inv


@kernel
def _jacobian(p, K, width, height):
    """(J00, J02, J11, J12, x/z is clamped, y/z is clamped) of the perspective division at p [3]."""
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    rz = 1.0 / p[2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    x, y = p[0] * rz, p[1] * rz
    tx = min(max(x, -cx / fx - margin_x), (width - cx) / fx + margin_x)
    ty = min(max(y, -cy / fy - margin_y), (height - cy) / fy + margin_y)
    return fx * rz, -fx * tx * rz, fy * rz, -fy * ty * rz, tx != x, ty != y


@kernel
def _to_camera(mean, viewmat, p):
    for i in range(3):
        p[i] = viewmat[i, 0] * mean[0] + viewmat[i, 1] * mean[1] + viewmat[i, 2] * mean[2] + viewmat[i, 3]


@kernel
def _footprint(rot, scale, viewmat, jac, V, A):
    """V = R Rot diag(s) [3, 3] and A = J V [2, 3], so that cov2d = A A^T."""
    for j in range(3):
        for i in range(3):
            V[i, j] = scale[j] * (
                viewmat[i, 0] * rot[0, j] + viewmat[i, 1] * rot[1, j] + viewmat[i, 2] * rot[2, j]
            )
        A[0, j] = jac[0] * V[0, j] + jac[1] * V[2, j]
        A[1, j] = jac[2] * V[1, j] + jac[3] * V[2, j]


@kernel
def project(means, quats, scales, opacities, viewmats, Ks, limits, means2d, depths, conics, radii):
    """Fill the outputs [C, N, ...]; zero for a Gaussian that is not visible.

    limits: width, height, near_plane, far_plane, radius_clip, eps2d.
    """
    width, height, near, far, radius_clip, eps2d = limits
    rot, V, A, p = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3)), np.empty(3)
    for g in range(means.shape[0]):
        if not opacities[g] >= ALPHA_THRESHOLD:
            continue
        extent = min(MAX_EXTENT, math.sqrt(2.0 * math.log(opacities[g] / ALPHA_THRESHOLD)))
        _rotation(quats[g], rot)
        for c in range(viewmats.shape[0]):
            _to_camera(means[g], viewmats[c], p)
            if not near <= p[2] <= far:  # also true for NaN
                continue
            _footprint(rot, scales[g], viewmats[c], _jacobian(p, Ks[c], width, height), V, A)
            xx = A[0, 0] * A[0, 0] + A[0, 1] * A[0, 1] + A[0, 2] * A[0, 2] + eps2d
            xy = A[0, 0] * A[1, 0] + A[0, 1] * A[1, 1] + A[0, 2] * A[1, 2]
            yy = A[1, 0] * A[1, 0] + A[1, 1] * A[1, 1] + A[1, 2] * A[1, 2] + eps2d
            det = xx * yy - xy * xy
            if not det > 0.0:
                continue
            radius_x = min(np.ceil(extent * math.sqrt(xx)), MAX_RADIUS)
            radius_y = min(np.ceil(extent * math.sqrt(yy)), MAX_RADIUS)
            x = Ks[c, 0, 0] * p[0] / p[2] + Ks[c, 0, 2]
            y = Ks[c, 1, 1] * p[1] / p[2] + Ks[c, 1, 2]
            if x + radius_x <= 0 or x - radius_x >= width or y + radius_y <= 0 or y - radius_y >= height:
                continue
            if radius_x <= radius_clip and radius_y <= radius_clip:
                continue
            means2d[c, g, 0], means2d[c, g, 1], depths[c, g] = x, y, p[2]
            conics[c, g, 0], conics[c, g, 1], conics[c, g, 2] = yy / det, -xy / det, xx / det
            radii[c, g, 0], radii[c, g, 1] = radius_x, radius_y


@kernel
def _screen_vjp(conic, v_conic, A, v_A):
    """Gradient of conic = inv(A A^T + eps2d I): v_conic [3] -> v_A [2, 3]."""
    a, b, c = conic[0], conic[1], conic[2]
    v_xx = -(v_conic[0] * a * a + v_conic[1] * a * b + v_conic[2] * b * b)
    v_yy = -(v_conic[0] * b * b + v_conic[1] * b * c + v_conic[2] * c * c)
    v_xy = -(2 * v_conic[0] * a * b + v_conic[1] * (a * c + b * b) + 2 * v_conic[2] * b * c)
    for j in range(3):
        v_A[0, j] = 2 * v_xx * A[0, j] + v_xy * A[1, j]
        v_A[1, j] = v_xy * A[0, j] + 2 * v_yy * A[1, j]


@kernel
def _perspective_vjp(p, K, jac, v_jac, v_xy, v_depth, v_p):
    """Gradient of the screen position and of J with respect to p [3], written to v_p."""
    fx, fy, rz = K[0, 0], K[1, 1], 1.0 / p[2]
    v_p[0], v_p[1] = fx * rz * v_xy[0], fy * rz * v_xy[1]
    v_p[2] = v_depth - rz * (v_p[0] * p[0] + v_p[1] * p[1])
    v_p[2] -= rz * (jac[0] * v_jac[0] + jac[2] * v_jac[2])
    # J02 = -fx x / z^2, or -fx limit / z if clamped; J12 likewise.
    if jac[4]:
        v_p[2] -= rz * jac[1] * v_jac[1]
    else:
        v_p[0] -= fx * rz * rz * v_jac[1]
        v_p[2] -= 2 * rz * jac[1] * v_jac[1]
    if jac[5]:
        v_p[2] -= rz * jac[3] * v_jac[3]
    else:
        v_p[1] -= fy * rz * rz * v_jac[3]
        v_p[2] -= 2 * rz * jac[3] * v_jac[3]


@kernel
def project_vjp(
    means, quats, scales, viewmats, Ks, limits, conics, radii,
    v_means2d, v_depths, v_conics, v_means, v_quats, v_scales,
):  # fmt: skip
    """Add the gradients of `project`, in camera order, to v_means, v_quats and v_scales."""
    width, height = limits[0], limits[1]
    rot, V, A, p = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3)), np.empty(3)
    v_M, v_rot, v_A = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
    v_p, v_jac = np.empty(3), np.empty(4)
    for g in range(means.shape[0]):
        inv = _rotation(quats[g], rot)
        v_M[:] = 0.0
        for c in range(viewmats.shape[0]):
            if radii[c, g, 0] <= 0 or radii[c, g, 1] <= 0:
                continue
            view = viewmats[c]
            _to_camera(means[g], view, p)
            jac = _jacobian(p, Ks[c], width, height)
            _footprint(rot, scales[g], view, jac, V, A)
            _screen_vjp(conics[c, g], v_conics[c, g], A, v_A)
            v_jac[:] = 0.0
            for j in range(3):
                v_jac[0] += v_A[0, j] * V[0, j]
                v_jac[1] += v_A[0, j] * V[2, j]
                v_jac[2] += v_A[1, j] * V[1, j]
                v_jac[3] += v_A[1, j] * V[2, j]
                v0, v1 = jac[0] * v_A[0, j], jac[2] * v_A[1, j]
                v2 = jac[1] * v_A[0, j] + jac[3] * v_A[1, j]
                for i in range(3):
                    v_M[i, j] += view[0, i] * v0 + view[1, i] * v1 + view[2, i] * v2
            _perspective_vjp(p, Ks[c], jac, v_jac, v_means2d[c, g], v_depths[c, g], v_p)
            for i in range(3):
                v_means[g, i] += view[0, i] * v_p[0] + view[1, i] * v_p[1] + view[2, i] * v_p[2]
        for j in range(3):
            for i in range(3):
                v_scales[g, j] += v_M[i, j] * rot[i, j]
                v_rot[i, j] = v_M[i, j] * scales[g, j]
        _rotation_vjp(quats[g], inv, v_rot, v_quats[g])


def double(tensor: Tensor) -> np.ndarray:
    """The tensor as a contiguous float64 array; shares memory if it already is one."""
    return tensor.detach().double().contiguous().numpy()


class Projection(torch.autograd.Function):
    """Projects N Gaussians, means [N, 3], quats [N, 4], scales [N, 3], to C screens.

    Returns means2d [C, N, 2], depths [C, N], conics [C, N, 3] and radii [C, N, 2] (int32, 0 if not visible).
    `opacities` [N] only limit the radii, as in gsplat, and get no gradient.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        viewmats: Tensor,  # [C, 4, 4]
        Ks: Tensor,  # [C, 3, 3]
        limits: tuple[float, float, float, float, float, float],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape = (len(viewmats), len(means))
        inputs = [double(x) for x in (means, quats, scales)]
        cameras = [double(x) for x in (viewmats, Ks)]
        means2d, depths, conics = (np.zeros((*shape, 2)), np.zeros(shape), np.zeros((*shape, 3)))
        radii = np.zeros((*shape, 2), dtype=np.int32)
        project(*inputs, double(opacities), *cameras, limits, means2d, depths, conics, radii)
        ctx.arrays = (*inputs, *cameras, limits, conics, radii)
        ctx.dtype = means.dtype
        outputs = [torch.from_numpy(x).to(means.dtype) for x in (means2d, depths, conics)]
        radii_tensor = torch.from_numpy(radii)
        ctx.mark_non_differentiable(radii_tensor)
        return outputs[0], outputs[1], outputs[2], radii_tensor

    @staticmethod
    def backward(ctx: Any, v_means2d: Tensor, v_depths: Tensor, v_conics: Tensor, _: Tensor) -> tuple:  # type: ignore[override]
        means, quats, scales = ctx.arrays[:3]
        grads = [np.zeros_like(x) for x in (means, quats, scales)]
        project_vjp(*ctx.arrays, double(v_means2d), double(v_depths), double(v_conics), *grads)
        return (*(torch.from_numpy(x).to(ctx.dtype) for x in grads), None, None, None, None)
