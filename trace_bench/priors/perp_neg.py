"""Perp-Neg (Armandpour et al. 2023): negative view prompts, in threestudio's and LucidDreamer's form.

Both interpolate the positive text between the two views next to the camera. They subtract the components of
the front and side views perpendicular to it, with weights that depend on the azimuth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.priors.base import Prior, TextEmbedding, guide
from trace_bench.priors.text import PromptText, between_views


@dataclass(frozen=True)
class PerpNegText:
    """The texts that Perp-Neg evaluates for each of B cameras: four, with the unconditional one."""

    positive: TextEmbedding  # [B, L, C]
    negatives: tuple[TextEmbedding, TextEmbedding]  # front and side, each [B, L, C]
    weights: Tensor  # [B, 2], zero or negative


def threestudio_weights(front_half: Tensor, r: Tensor) -> Tensor:
    """Weights of front and side view, shifted exponentials in r: [B, 2]."""
    front = torch.where(front_half, 4.0 * torch.exp(-r / 2.0) - 2.426, torch.exp(-r / 2.0) + 0.967)
    side = torch.where(front_half, 4.0 * torch.exp((r - 1.0) / 2.0) - 2.426, torch.exp(-r / 2.0) - 0.606)
    return -torch.stack([front, side], dim=1)


def lucid_dreamer_weights(front_half: Tensor, r: Tensor) -> Tensor:
    """Weights of front and side view, exponentials in r, set to zero close to the view itself: [B, 2]."""
    near_front = (2.0 * torch.exp(-2.0 * r)).masked_fill(r > 0.8, 0.0)
    near_side = (2.0 * torch.exp(-10.0 * (1.0 - r))).masked_fill(r < 0.2, 0.0)
    behind_side = torch.exp(-10.0 * r).masked_fill(r > 0.8, 0.0)
    front = torch.where(front_half, near_front, torch.full_like(r, 2.0))
    return -torch.stack([front, torch.where(front_half, near_side, behind_side)], dim=1)


def threestudio_text(text: PromptText, cameras: Cameras, overhead: float) -> PerpNegText:
    """threestudio's form: above `overhead` degrees of elevation, only the overhead text and no negatives."""
    device = text.views.tokens.device
    above = cameras.elevation_deg.to(device) > overhead
    top = text.view("overhead", len(cameras))
    positive = TextEmbedding.where(above, top, text.interpolated(cameras))
    weights = threestudio_weights(*between_views(cameras, device))
    return _with_negatives(text, positive, weights.masked_fill(above.unsqueeze(1), 0.0))


def lucid_dreamer_text(text: PromptText, cameras: Cameras) -> PerpNegText:
    """LucidDreamer's form, without an overhead view."""
    weights = lucid_dreamer_weights(*between_views(cameras, text.views.tokens.device))
    return _with_negatives(text, text.interpolated(cameras), weights)


def _with_negatives(text: PromptText, positive: TextEmbedding, weights: Tensor) -> PerpNegText:
    n = len(positive)
    return PerpNegText(positive, (text.view("front", n), text.view("side", n)), weights)


def perpendicular(x: Tensor, y: Tensor) -> Tensor:
    """x minus its projection on y, per sample: [B, C, h, w]."""
    dims = tuple(range(1, x.dim()))
    along = (x * y).sum(dims, keepdim=True) / (y * y).sum(dims, keepdim=True).clamp(min=1e-6)
    return x - along * y


def perp_neg_direction(positive: Tensor, negatives: tuple[Tensor, Tensor], weights: Tensor) -> Tensor:
    """d+ + sum_i w_i (d_i minus its projection on d+), d = differences to the unconditional: [B, C, h, w]."""
    pushed = [
        weights[:, i].view(-1, 1, 1, 1).to(positive) * perpendicular(negative, positive)
        for i, negative in enumerate(negatives)
    ]
    return positive + pushed[0] + pushed[1]


def guided_eps(
    prior: Prior,
    x_t: Tensor,  # [B, C, h, w]
    t: Tensor,  # int64 [B]
    cond: TextEmbedding | PerpNegText,
    uncond: TextEmbedding,
    guidance_scale: float,
) -> Tensor:
    """The guided noise prediction; Perp-Neg, if `cond` is a PerpNegText, costs four items instead of two."""
    if isinstance(cond, TextEmbedding):
        return prior.eps_cfg(x_t, t, cond, uncond, guidance_scale)[0]
    texts = TextEmbedding.cat([cond.positive, uncond, *cond.negatives])
    eps, eps_uncond, front, side = prior.eps(torch.cat([x_t] * 4), torch.cat([t] * 4), texts).chunk(4)
    negatives = (front - eps_uncond, side - eps_uncond)
    direction = perp_neg_direction(eps - eps_uncond, negatives, cond.weights)
    return guide(eps_uncond, direction, guidance_scale)


def guided_items(perp_neg: bool) -> int:
    """Denoiser items per sample in `guided_eps`."""
    return 4 if perp_neg else 2
