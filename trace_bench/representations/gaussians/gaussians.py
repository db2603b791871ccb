"""3D Gaussians (Kerbl et al. 2023), SH degree 0, trained as in GaussianDreamer and TraCe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from trace_bench.render import Render
from trace_bench.representations.base import InitialPoints, Representation
from trace_bench.representations.bounded import bounded
from trace_bench.representations.gaussians import losses as splat_losses
from trace_bench.representations.gaussians.densify import Densifier, DensifySettings, rotations
from trace_bench.representations.gaussians.ply import write_splat_ply
from trace_bench.representations.settings import merged
from trace_bench.system import kernels
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.splat_file import SH_C0
from trace_bench.system.tensors import load_optimizer, write_tensors

if TYPE_CHECKING:
    from trace_bench.cameras import Cameras
    from trace_bench.progress import Progress
    from trace_bench.representations.points import PointCloud

PARAMS = ("means", "quats", "scales", "opacities", "sh0")
LEARNING_RATES = {"means": 2e-4, "quats": 1e-3, "scales": 5e-3, "opacities": 0.01, "sh0": 0.0125}
LOSSES = {"sparsity": 1.0, "opaque": 0.0, "tv_rgb": 0.0, "tv_disparity": 0.0, "scale": 0.0}
LOSSES_MODES = ("raw", "normalised")
OPACITY_FROM = ("depth", "alpha")
COLORS = ("bounded", "released")


class Gaussians(Representation):
    """N Gaussians with gsplat's parameters.

    means [N, 3], quats [N, 4] wxyz, scales [N, 3] (log), opacities [N] (logit), sh0 [N, 1, 3].

    Args:
        points: initial points; `resolution` is ignored.
        latent_shape: (C, h, w); its cells are the unit of the normalised densification statistic.
        seed: seed of the random offsets of split Gaussians.
        lr: learning rate of each parameter; the others keep the paper's.
        means_lr_final: learning rate of the positions at `means_lr_steps`, reached log-linearly.
        means_lr_steps: a step of the reference run.
        lr_final: learning rates of other parameters at the end of the run, reached log-linearly; the others
            stay constant.
        reference_steps: length of the run that step numbers refer to; they scale with the actual length.
            None: step numbers are used unscaled.
        opacity: initial opacity of each Gaussian.
        losses: weights of `sparsity` and `opaque` of o, of the total variation of colours (`tv_rgb`) and
            disparity (`tv_disparity`), and of the mean size of a Gaussian (`scale`); see `splat_losses`.
        losses_mode: `raw` weights as given, or `normalised` to a view's RMS latent gradient, so that a weight
            means the same for methods with gradients of different size.
        opacity_from: the o of these losses: `alpha`, or `depth`, which is accumulated depth over its maximum;
            the released code uses `depth`.
        colors: `bounded` to [0, 1], with gradients that can bring them back; `released`: clamped from below
            only, without a gradient below 0, like the CUDA rasteriser of 3DGS.
        densify: fields of `DensifySettings`.
    """

    initial_points: ClassVar[InitialPoints] = "needed"

    def __init__(
        self,
        points: PointCloud | None,
        resolution: int,
        latent_shape: Sequence[int],
        seed: int,
        device: torch.device | str,
        *,
        lr: Mapping[str, float] | None = None,
        means_lr_final: float = 1e-4,
        means_lr_steps: int = 30_000,
        lr_final: Mapping[str, float] | None = None,
        reference_steps: int | None = 1700,
        opacity: float = 0.1,
        losses: Mapping[str, float] | None = None,
        losses_mode: str = "raw",
        opacity_from: str = "depth",
        colors: str = "bounded",
        densify: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.lr = merged("lr", LEARNING_RATES, lr)
        self.losses = merged("losses", LOSSES, losses)
        if opacity_from not in OPACITY_FROM:
            known = ", ".join(OPACITY_FROM)
            raise TraceBenchError(f"representation.opacity_from={opacity_from!r} is not one of {known}.")
        if colors not in COLORS:
            raise TraceBenchError(f"representation.colors={colors!r} is not one of {', '.join(COLORS)}.")
        if losses_mode not in LOSSES_MODES:
            known = ", ".join(LOSSES_MODES)
            raise TraceBenchError(f"representation.losses_mode={losses_mode!r} is not one of {known}.")
        if not 0.0 < opacity < 1.0:
            raise TraceBenchError(f"representation.opacity must be between 0 and 1, but is {opacity}.")
        if min(means_lr_final, means_lr_steps, self.lr["means"]) <= 0:
            raise TraceBenchError(
                "representation.lr.means, means_lr_final and means_lr_steps must be above 0."
            )
        self.means_lr = (means_lr_final, means_lr_steps)
        constant = {name: self.lr[name] for name in PARAMS if name != "means"}
        self.lr_final = merged("lr_final", constant, lr_final)
        if min(self.lr_final.values()) <= 0:
            raise TraceBenchError("representation.lr_final must be above 0.")
        self.reference_steps = reference_steps
        self.losses_mode, self.opacity_from, self.colors = losses_mode, opacity_from, colors
        settings = DensifySettings(**merged("densify", vars(DensifySettings()), densify))
        self.densifier = Densifier(settings, reference_steps, latent_shape, seed)
        if points is None:
            raise TraceBenchError("Gaussians need initial points; choose an init other than none.")
        if len(points) > settings.max_gaussians and settings.mode != "off":
            raise TraceBenchError(
                f"The init has {len(points)} points, more than representation.densify.max_gaussians="
                f"{settings.max_gaussians}; use fewer points or raise the limit."
            )
        self._own(initial(points.to("cpu"), opacity))

    def _own(self, tensors: Mapping[str, Tensor]) -> None:
        """Make these tensors the parameters, with a new optimiser."""
        self.params = {name: torch.nn.Parameter(tensors[name].to(self.device)) for name in PARAMS}
        groups = [{"params": [p], "lr": self.lr[name], "name": name} for name, p in self.params.items()]
        self.optimizers = {"adam": torch.optim.Adam(groups, eps=1e-15, fused=True)}

    @property
    def n_primitives(self) -> int:
        return len(self.params["means"])

    def render(self, cameras: Cameras, background: Tensor, with_normals: bool = False) -> Render:
        p = self.params
        backgrounds = background.expand(len(cameras), 3)
        unclamped = 0.5 + SH_C0 * p["sh0"][:, 0]  # [N, 3]
        colors = bounded(unclamped) if self.colors == "bounded" else unclamped.clamp(min=0.0)
        if with_normals:
            per_camera = colors.expand(len(cameras), -1, -1)
            colors = torch.cat([per_camera, self._normals(cameras)], dim=-1)  # [C, N, 6]
            backgrounds = torch.cat([backgrounds, torch.zeros_like(backgrounds)], dim=-1)
        image, alpha, info = rasterization_on(self.device)(
            p["means"], p["quats"], p["scales"].exp(), p["opacities"].sigmoid(), colors,
            cameras.viewmats, cameras.Ks, cameras.width, cameras.height,
            backgrounds=backgrounds, render_mode="RGB+D", packed=False,
        )  # fmt: skip
        accumulated = image[..., -1:]
        info["accumulated_depth"] = accumulated
        normal = None
        if with_normals:
            normal = torch.nn.functional.normalize(image[..., 3:6], dim=-1)
        return Render(image[..., :3], alpha, accumulated / alpha.clamp(min=1e-10), normal, info=info)

    def _normals(self, cameras: Cameras) -> Tensor:
        """Each Gaussian's shortest axis, flipped to face the camera: [C, N, 3], world space."""
        axes = rotations(self.params["quats"])  # [N, 3, 3], axes in columns
        shortest = self.params["scales"].argmin(dim=-1)
        normals = axes.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]  # [N, 3]
        away = self.params["means"] - cameras.c2w[:, None, :3, 3]  # [C, N, 3]
        facing = (away * normals).sum(dim=-1, keepdim=True) > 0
        return torch.where(facing, -normals, normals)

    def regularisation(self, render: Render, progress: Progress, grad_rms: Tensor) -> Tensor:
        if self.opacity_from == "alpha":
            o = render.alpha
        else:
            depth = render.info["accumulated_depth"]
            o = depth / (depth.max() + 1e-5)
        weights = self.losses
        loss = weights["sparsity"] * splat_losses.sparsity(o)
        if weights["opaque"]:
            loss = loss + weights["opaque"] * splat_losses.opaque(o)
        if weights["tv_rgb"] and render.rgb is not None:
            loss = loss + weights["tv_rgb"] * splat_losses.total_variation(render.rgb)
        if weights["tv_disparity"]:
            disparity = splat_losses.disparity(render.depth, render.alpha)
            loss = loss + weights["tv_disparity"] * splat_losses.total_variation(disparity)
        if weights["scale"]:
            loss = loss + weights["scale"] * self.params["scales"].exp().mean()
        return loss * grad_rms * len(render.alpha) if self.losses_mode == "normalised" else loss

    def pre_backward(self, render: Render) -> None:
        if self.densifier.grows:
            render.info["means2d"].retain_grad()

    def post_backward(self, render: Render, progress: Progress, grad_rms: Tensor) -> None:
        """In a step that densifies, the parameters are replaced and no optimiser steps, as in the released
        code."""
        self.densifier.observe(render.info, progress, grad_rms)
        event, optimizer = self.densifier.event(progress), self.optimizers["adam"]
        if event is not None:
            self.densifier.run(self.params, optimizer, event, progress.k)
        else:
            for group in optimizer.param_groups:
                group["lr"] = self.lr_at(group["name"], progress)
            optimizer.step()
        if self.densifier.resets(progress):
            self.densifier.reset_opacity(self.params, optimizer)
        for param in self.params.values():
            param.grad = None

    def lr_at(self, name: str, progress: Progress) -> float:
        """A parameter's learning rate: log-linear from lr to lr_final over the run."""
        if name == "means":
            return self.means_lr_at(progress)
        start, end = self.lr[name], self.lr_final[name]
        return start * (end / start) ** progress.fraction

    def means_lr_at(self, progress: Progress) -> float:
        """The position's learning rate: log-linear from lr.means to means_lr_final, then constant."""
        final, over = self.means_lr
        step = progress.k if self.reference_steps is None else progress.k * self.reference_steps / progress.n
        done = min(1.0, step / over)
        return math.exp((1.0 - done) * math.log(self.lr["means"]) + done * math.log(final))

    def state_dict(self) -> dict[str, Any]:
        return {
            "params": {name: param.detach().clone() for name, param in self.params.items()},
            "optimizers": {name: deepcopy(o.state_dict()) for name, o in self.optimizers.items()},
            "densify": {name: value.clone() for name, value in self.densifier.stats.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _check_form(self.params, state)
        self._own({name: value.clone() for name, value in state["params"].items()})
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, state["optimizers"][name])
        self.densifier.stats = {k: value.to(self.device).clone() for k, value in state["densify"].items()}

    def export(self, folder: Path) -> list[Path]:
        """Write `asset.ply` for splat viewers and `asset.safetensors` with the raw parameters."""
        tensors = {name: param.detach().cpu().contiguous() for name, param in self.params.items()}
        ply, safe = folder / "asset.ply", folder / "asset.safetensors"
        write_splat_ply(ply, tensors)
        write_tensors(safe, tensors, {"scales": "log", "opacities": "logit", "quats": "wxyz"})
        return [ply, safe]


def _check_form(own: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Raise ValueError unless a saved state describes N Gaussians."""
    count = len(state["params"]["means"])
    for name, param in own.items():
        saved, shape = state["params"][name], (count, *param.shape[1:])
        if saved.dtype != param.dtype or saved.shape != shape:
            raise ValueError(f"{name} is not {param.dtype} of shape {list(shape)}")
    if count == 0 or any(len(value) != count for value in state["densify"].values()):
        raise ValueError(f"its densification is not of {count} Gaussians")


def initial(points: PointCloud, opacity: float) -> dict[str, Tensor]:
    """Initial parameters: the Gaussians of the init if it has them, else isotropic ones whose scale is the
    RMS distance to the three nearest neighbours.
    """
    from scipy.spatial import cKDTree

    if points.splats is not None:
        return {name: points.splats[name].detach().float().clone() for name in PARAMS}
    n = len(points)
    positions = points.positions.detach().cpu().double().numpy()
    squared = torch.zeros(n)
    if n > 1:
        distances, _ = cKDTree(positions).query(positions, k=min(4, n))  # the first is the point itself
        squared = torch.from_numpy(distances[:, 1:] ** 2).mean(dim=-1).float()
    scale = 0.5 * torch.log(squared.clamp(min=1e-7))
    quats = torch.zeros(n, 4)
    quats[:, 0] = 1.0
    return {
        "means": points.positions.detach().float().clone(),
        "quats": quats,
        "scales": scale[:, None].repeat(1, 3),
        "opacities": torch.full((n,), math.log(opacity / (1.0 - opacity))),
        "sh0": ((points.colors.detach().float() - 0.5) / SH_C0)[:, None, :].clone(),
    }


def rasterization_on(device: torch.device) -> Callable[..., tuple[Tensor, Tensor, dict[str, Any]]]:
    """gsplat's kernels on CUDA, this package's CPU rasteriser otherwise."""
    if device.type == "cuda":
        kernels.load()
        from gsplat import rasterization
    else:
        from trace_bench.representations.splat_cpu import rasterization
    return rasterization
