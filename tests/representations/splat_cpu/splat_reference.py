"""Reference for the CPU rasteriser: dense per-pixel compositing in plain torch, and scenes."""

from __future__ import annotations

import torch
from torch import Tensor

from trace_bench.cameras import make_cameras

Gaussians = dict[str, Tensor]


def scene(n: int, seed: int = 0, scale: float = 0.12, dtype: torch.dtype = torch.float64) -> Gaussians:
    """n Gaussians of mixed shape and opacity in a ball of radius 0.8, with 3 colour channels."""
    rng = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=rng), dim=-1)
    values = {
        "means": 0.8 * direction * torch.rand(n, 1, generator=rng) ** (1 / 3),
        "quats": torch.randn(n, 4, generator=rng),
        "scales": scale * torch.exp(0.5 * torch.randn(n, 3, generator=rng)),
        "opacities": torch.sigmoid(1.5 * torch.randn(n, generator=rng)),
        "colors": torch.rand(n, 3, generator=rng),
    }
    return {name: value.to(dtype) for name, value in values.items()}


def views(n: int, width: int, height: int, dtype: torch.dtype = torch.float64) -> dict[str, object]:
    """n cameras around the ball, as keyword arguments of `rasterization`."""
    cameras = make_cameras(torch.linspace(-10, 50, n), torch.arange(n) * 100.0, 2.6, 42.0, width, height)
    matrices = {"viewmats": cameras.viewmats.to(dtype), "Ks": cameras.Ks.to(dtype)}
    return {**matrices, "width": width, "height": height}


def composite_naively(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    channels: Tensor,  # [N, D]
    depths: Tensor,  # [N]
    visible: Tensor,  # [N] bool
    background: Tensor,  # [D]
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """One image, every Gaussian evaluated at every pixel: color [H, W, D] and alpha [H, W, 1]."""
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([u, v], dim=-1).reshape(-1, 2).to(means2d.dtype)
    color = torch.zeros(len(pixels), channels.shape[-1], dtype=means2d.dtype)
    left = torch.ones(len(pixels), dtype=means2d.dtype)
    full = torch.zeros(len(pixels), dtype=torch.bool)
    for g in torch.argsort(depths.detach(), stable=True).tolist():
        if not visible[g]:
            continue
        dx, dy = (pixels - means2d[g]).unbind(-1)
        sigma = 0.5 * (conics[g, 0] * dx**2 + conics[g, 2] * dy**2) + conics[g, 1] * dx * dy
        alpha = (opacities[g] * torch.exp(-sigma)).clamp(max=0.999)
        drawn = (alpha >= 1 / 255) & ~full
        after = left * (1 - alpha)
        full = full | (drawn & (after <= 1e-4))
        drawn = drawn & ~full
        color = color + torch.where(drawn, alpha * left, 0.0)[:, None] * channels[g]
        left = torch.where(drawn, after, left)
    color = color + left[:, None] * background
    return color.reshape(height, width, -1), (1 - left).reshape(height, width, 1)


def rasterize_naively(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    viewmats: Tensor, Ks: Tensor, width: int, height: int, backgrounds: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """RGB+D of C cameras: gsplat's own torch twin of the projection, then `composite_naively`."""
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    covars, _ = _quat_scale_to_covar_preci(quats, scales, True, False, triu=False)
    radii, means2d, depths, conics, _ = _fully_fused_projection(means, covars, viewmats, Ks, width, height)
    images = []
    for c in range(len(viewmats)):
        channels = torch.cat([colors, depths[c, :, None]], dim=-1)
        background = torch.cat([backgrounds[c], backgrounds.new_zeros(1)])
        visible = (radii[c] > 0).all(dim=-1) & (opacities >= 1 / 255)
        screen = (means2d[c], conics[c], opacities, channels, depths[c], visible)
        images.append(composite_naively(*screen, background, width, height))
    return torch.stack([x[0] for x in images]), torch.stack([x[1] for x in images])
