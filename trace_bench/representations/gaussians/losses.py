"""Regularisers of 3D Gaussians; each returns a scalar for one batch of renders."""

from __future__ import annotations

import torch
from torch import Tensor


def sparsity(o: Tensor) -> Tensor:
    """Mean sqrt(o^2 + 0.01): penalises opacity."""
    return torch.sqrt(o * o + 0.01).mean()


def opaque(o: Tensor) -> Tensor:
    """Mean binary entropy of o: pushes o to 0 or 1."""
    inside = o.clamp(1e-3, 1.0 - 1e-3)
    return torch.nn.functional.binary_cross_entropy(inside, inside)


def total_variation(picture: Tensor) -> Tensor:
    """2 (mean squared vertical + mean squared horizontal difference) of [B, H, W, C], as in LucidDreamer."""
    down = picture[:, 1:] - picture[:, :-1]
    right = picture[:, :, 1:] - picture[:, :, :-1]
    return 2.0 * (down.square().mean() + right.square().mean())


def disparity(depth: Tensor, alpha: Tensor) -> Tensor:
    """alpha / depth [B, H, W, 1], scaled to 1 at each view's nearest point; 0 where alpha is near 0."""
    inverse = alpha / torch.where(alpha > 1e-3, depth, torch.ones_like(depth))
    return inverse / inverse.detach().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
