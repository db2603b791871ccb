"""A flat canvas, latent or RGB (threestudio's 2-D playground): the fastest check that a method works."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from trace_bench.render import Render
from trace_bench.representations.base import InitialPoints, Representation
from trace_bench.representations.bounded import bounded
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.tensors import load_optimizer, write_tensors

if TYPE_CHECKING:
    from trace_bench.cameras import Cameras
    from trace_bench.progress import Progress
    from trace_bench.representations.points import PointCloud

MODES = ("latent", "rgb")


class Image(Representation):
    """One image for every camera: latents [C, h, w] from N(0, I), or RGB [H, W, 3] from U(0, 1).

    Args:
        points: ignored, like the background, which the image covers.
        resolution: H = W in rgb mode.
        latent_shape: (C, h, w) in latent mode.
        seed: seed of the initial canvas.
        warmup: share of the run in which the learning rate rises linearly to `lr`; then it follows a cosine
            that would reach zero at 1.5 times the run.
    """

    views_matter: ClassVar[bool] = False
    initial_points: ClassVar[InitialPoints] = "unused"

    def __init__(
        self,
        points: PointCloud | None,
        resolution: int,
        latent_shape: Sequence[int],
        seed: int,
        device: torch.device | str,
        *,
        mode: str = "latent",
        lr: float = 0.1,
        warmup: float = 0.1,
    ) -> None:
        if mode not in MODES:
            raise TraceBenchError(f"representation.mode={mode!r} is not one of {', '.join(MODES)}.")
        if lr <= 0.0 or not 0.0 <= warmup < 1.0:
            raise TraceBenchError(
                f"The image needs lr > 0 and warmup in [0, 1), but has lr={lr} and warmup={warmup}; fix "
                "representation.lr or representation.warmup."
            )
        self.mode, self.lr, self.warmup = mode, lr, warmup
        generator = StepRng(seed, -1).generator("canvas")
        if mode == "latent":
            canvas = torch.randn(tuple(latent_shape), generator=generator)
        else:
            canvas = torch.rand((resolution, resolution, 3), generator=generator)
        self.canvas = torch.nn.Parameter(canvas.to(device))
        self.optimizers = {"canvas": torch.optim.AdamW([self.canvas], lr=lr, weight_decay=0.0, fused=True)}

    @classmethod
    def is_latent(cls, settings: Mapping[str, Any]) -> bool:
        return settings.get("mode", "latent") == "latent"

    @property
    def n_primitives(self) -> int:
        """Number of pixels of the canvas."""
        return self.canvas.numel() // self.canvas.shape[0 if self.mode == "latent" else 2]

    def render(self, cameras: Cameras, background: Tensor, with_normals: bool = False) -> Render:
        canvas = self.canvas.expand(len(cameras), *self.canvas.shape)
        shape = canvas.shape[2:4] if self.mode == "latent" else canvas.shape[1:3]
        alpha = canvas.new_ones(len(cameras), *shape, 1)
        depth = torch.zeros_like(alpha)
        normal = alpha.new_zeros(len(cameras), *shape, 3) if with_normals else None
        if self.mode == "latent":
            return Render(None, alpha, depth, normal, latents=canvas)
        return Render(bounded(canvas), alpha, depth, normal)

    def regularisation(self, render: Render, progress: Progress, grad_rms: Tensor) -> Tensor:
        """No regularisation: zero."""
        return self.canvas.new_zeros(())

    def post_backward(self, render: Render, progress: Progress, grad_rms: Tensor) -> None:
        self.optimizers["canvas"].param_groups[0]["lr"] = self.lr * lr_factor(progress, self.warmup)
        self.optimizers["canvas"].step()
        self.canvas.grad = None

    def state_dict(self) -> dict[str, Any]:
        optimizer = deepcopy(self.optimizers["canvas"].state_dict())
        return {"canvas": self.canvas.detach().clone(), "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.canvas.copy_(state["canvas"])
        load_optimizer(self.optimizers["canvas"], state["optimizer"])

    def export(self, folder: Path) -> list[Path]:
        """Write `asset.safetensors` with the raw canvas and, in rgb mode, `asset.png`."""
        from PIL import Image as Picture

        canvas = self.canvas.detach().cpu()
        paths = [folder / "asset.safetensors"]
        folder.mkdir(parents=True, exist_ok=True)
        name = "latents" if self.mode == "latent" else "rgb"
        write_tensors(paths[0], {name: canvas.contiguous()}, {})
        if self.mode == "rgb":
            paths.append(folder / "asset.png")
            Picture.fromarray((canvas.clamp(0.0, 1.0) * 255.0).round().byte().numpy()).save(paths[1])
        return paths


def lr_factor(progress: Progress, warmup: float) -> float:
    """Linear over the first `warmup` of the run, then a cosine that would reach zero at 1.5 runs."""
    rise = warmup * progress.n
    if progress.k < rise:
        return min(1.0, (progress.k + 1) / rise)
    return 0.5 * (1.0 + math.cos(math.pi * (progress.k - rise) / (1.5 * progress.n - rise)))
