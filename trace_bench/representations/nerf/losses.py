"""Losses that keep a NeRF solid; each is a pure function that returns a scalar."""

from __future__ import annotations

import torch
from torch import Tensor

CONVEXITY_SIZE = 8  # side in pixels of the downsampled normal map


def sparsity(alpha: Tensor) -> Tensor:
    """mean sqrt(o^2 + 0.01) (DreamFusion, appendix A.2)."""
    return torch.sqrt(alpha * alpha + 0.01).mean()


def opaque(alpha: Tensor) -> Tensor:
    """Mean binary entropy of o, clamped away from 0 and 1 (Latent-NeRF, Metzer et al. 2023, section 4)."""
    inside = alpha.clamp(1e-3, 1.0 - 1e-3)
    return torch.nn.functional.binary_cross_entropy(inside, inside)


def orientation(weights: Tensor, normals: Tensor, directions: Tensor, alpha: Tensor) -> Tensor:
    """Sum of w max(n . d, 0)^2 over the samples, divided by the number of rays that hit something.

    Ref-NeRF's loss (Verbin et al. 2022, equation 11) with DreamFusion's stop-gradient on the weights.
    weights [M]; normals and ray directions [M, 3]; alpha of all rays.
    """
    facing_away = (normals * directions).sum(dim=-1).clamp(min=0.0)
    return (weights.detach() * facing_away.square()).sum() / (alpha > 0.0).sum().clamp(min=1)


def z_variance(variance: Tensor, alpha: Tensor) -> Tensor:
    """Mean variance of the depth along the ray, over rays with o > 0.5 (HiFA, Zhu and Zhuang 2024)."""
    solid = alpha > 0.5
    return torch.where(solid, variance, 0.0).sum() / solid.sum().clamp(min=1)


def convexity(normals: Tensor, alpha: Tensor) -> Tensor:
    """Penalty on concave normals (the released code of Lukoianov et al. 2024).

    normals [B, H, W, 3] unit, alpha [B, H, W, 1]. Normals are compared as colours, (n + 1) / 2 over black, at
    8 x 8 pixels. The loss is minus the mean z of the cross products left x right and below x above.
    """
    picture = (0.5 * (normals + 1.0) * alpha).permute(0, 3, 1, 2)
    size = (CONVEXITY_SIZE, CONVEXITY_SIZE)
    small = torch.nn.functional.interpolate(picture, size, mode="bilinear", align_corners=False)
    small = small.permute(0, 2, 3, 1)
    across = torch.cross(small[:, :, :-1], small[:, :, 1:], dim=-1)[..., 2]
    upwards = torch.cross(small[:, 1:], small[:, :-1], dim=-1)[..., 2]
    return -(across.mean() + upwards.mean())
