"""gsplat's `rasterization` on the CPU. Unsupported arguments raise an error."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from trace_bench.representations.splat_cpu.compositing import Compositing
from trace_bench.representations.splat_cpu.projection import Projection
from trace_bench.system.errors import TraceBenchError

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")

#: arguments of gsplat 1.5 that support only this value here
ONLY = {
    "sh_degree": None,
    "sparse_grad": False,
    "rasterize_mode": "classic",
    "distributed": False,
    "camera_model": "pinhole",
    "segmented": False,
    "covars": None,
    "with_ut": False,
    "with_eval3d": False,
    "radial_coeffs": None,
    "tangential_coeffs": None,
    "thin_prism_coeffs": None,
    "ftheta_coeffs": None,
    "viewmats_rs": None,
}


def rasterization(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4] wxyz, need not be unit
    scales: Tensor,  # [N, 3] standard deviations
    opacities: Tensor,  # [N] in [0, 1]
    colors: Tensor,  # [N, D] or [C, N, D], post-activation
    viewmats: Tensor,  # [C, 4, 4] world to camera, OpenCV
    Ks: Tensor,  # [C, 3, 3] pixels
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,  # [C, D]
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    channel_chunk: int = 32,
    **others: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render [C, H, W, X] and alphas [C, H, W, 1] of C cameras; also returns gsplat's `info`.

    X is D, 1 (render_mode D, ED) or D + 1 (RGB+D, RGB+ED); D is accumulated, ED expected z-depth. Gradients
    reach means, quats, scales, opacities, colors and backgrounds. `info["means2d"]` ([C, N, 2], or [nnz, 2]
    if packed) can retain its gradient, and has `absgrad` on request. `tile_size` and `channel_chunk` are
    ignored; `info` has no entries on tiles.
    """
    _refuse(sh_degree=sh_degree, sparse_grad=sparse_grad, rasterize_mode=rasterize_mode, **others)
    _check(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, render_mode)
    finite = all(math.isfinite(float(x.detach().sum())) for x in (means, quats, scales, opacities, colors))
    n_cameras = len(viewmats)
    limits = tuple(map(float, (width, height, near_plane, far_plane, radius_clip, eps2d)))
    means2d, depths, conics, radii = Projection.apply(means, quats, scales, opacities, viewmats, Ks, limits)
    opacities = opacities.expand(n_cameras, -1)
    if colors.dim() == 2:
        colors = colors.expand(n_cameras, -1, -1)
    starts = [c * len(means) for c in range(n_cameras + 1)]
    camera_ids = gaussian_ids = None
    if packed:
        camera_ids, gaussian_ids = torch.where((radii > 0).all(dim=-1))
        seen = (camera_ids, gaussian_ids)
        means2d, depths, conics, radii = means2d[seen], depths[seen], conics[seen], radii[seen]
        opacities, colors = opacities[seen], colors[seen]
        starts = torch.searchsorted(camera_ids, torch.arange(n_cameras + 1)).tolist()
    features, behind = _features(colors, depths, backgrounds, render_mode)
    rendered, alphas = Compositing.apply(
        means2d, conics, features, opacities, behind, depths.detach(), radii, starts, (width, height), absgrad
    )
    if not finite:
        rendered = rendered * math.nan  # the kernels skip non-finite Gaussians, which would hide them
    if render_mode.endswith("ED"):
        expected = rendered[..., -1:] / alphas.clamp(min=1e-10)
        rendered = torch.cat([rendered[..., :-1], expected], dim=-1)
    info = {
        "batch_ids": torch.zeros_like(camera_ids) if camera_ids is not None else None,
        "camera_ids": camera_ids,
        "gaussian_ids": gaussian_ids,
        "radii": radii,
        "means2d": means2d,
        "depths": depths,
        "conics": conics,
        "opacities": opacities,
        "width": width,
        "height": height,
        "n_batches": 1,
        "n_cameras": n_cameras,
    }
    return rendered, alphas, info


def _features(
    colors: Tensor, depths: Tensor, backgrounds: Tensor | None, render_mode: str
) -> tuple[Tensor, Tensor | None]:
    """Channels to composite, depth last, and the background of each; depth has background zero."""
    if render_mode == "RGB":
        return colors, backgrounds
    zero = None if backgrounds is None else backgrounds.new_zeros(len(backgrounds), 1)
    if not render_mode.startswith("RGB"):
        return depths[..., None], zero
    behind = None if backgrounds is None or zero is None else torch.cat([backgrounds, zero], dim=-1)
    return torch.cat([colors, depths[..., None]], dim=-1), behind


def _refuse(**given: Any) -> None:
    for name, value in given.items():
        if name == "rolling_shutter":  # an enum
            if getattr(value, "name", value) != "GLOBAL":
                raise TraceBenchError(
                    "The CPU rasteriser does not support a rolling shutter; leave it out or render on CUDA."
                )
        elif name not in ONLY:
            raise TraceBenchError(f"rasterization has no argument {name!r}; see gsplat's documentation.")
        elif (value is None) != (ONLY[name] is None) or (value is not None and value != ONLY[name]):
            raise TraceBenchError(
                f"The CPU rasteriser supports only {name}={ONLY[name]!r}; leave it out or render on CUDA."
            )


def _check(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    viewmats: Tensor, Ks: Tensor, backgrounds: Tensor | None, render_mode: str,
) -> None:  # fmt: skip
    n, c = (means.shape[0] if means.dim() == 2 else -1), len(viewmats)
    wanted: dict[str, tuple[Tensor, list[tuple[int, ...]]]] = {
        "means": (means, [(n, 3)]),
        "quats": (quats, [(n, 4)]),
        "scales": (scales, [(n, 3)]),
        "opacities": (opacities, [(n,)]),
        "colors": (colors, [(n, colors.shape[-1]), (c, n, colors.shape[-1])]),
        "viewmats": (viewmats, [(c, 4, 4)]),
        "Ks": (Ks, [(c, 3, 3)]),
    }
    if backgrounds is not None:
        channels = colors.shape[-1] if render_mode.startswith("RGB") else backgrounds.shape[-1]
        wanted["backgrounds"] = (backgrounds, [(c, channels)])
    for name, (tensor, shapes) in wanted.items():
        if tuple(tensor.shape) not in shapes:
            allowed = " or ".join(map(str, shapes))
            raise TraceBenchError(
                f"rasterization got {name} of shape {tuple(tensor.shape)}, but needs {allowed}."
            )
        if tensor.device.type != "cpu" or tensor.dtype not in {torch.float32, torch.float64}:
            raise TraceBenchError(
                f"The CPU rasteriser takes float32 or float64 CPU tensors, but {name} is {tensor.dtype} "
                f"on {tensor.device}; convert it, or call gsplat.rasterization for CUDA."
            )
    if viewmats.requires_grad or Ks.requires_grad:
        raise TraceBenchError("The CPU rasteriser has no gradients for cameras; detach viewmats and Ks.")
    if render_mode not in RENDER_MODES:
        raise TraceBenchError(f"render_mode={render_mode!r} is not one of {', '.join(RENDER_MODES)}.")
