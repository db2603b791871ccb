"""The NeRF representation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from trace_bench.progress import Progress, scheduled
from trace_bench.render import Render
from trace_bench.representations.base import InitialPoints, Representation
from trace_bench.representations.nerf import losses as terms
from trace_bench.representations.nerf.environment import Environment
from trace_bench.representations.nerf.field import Field, FieldSettings
from trace_bench.representations.nerf.hash_grid import HashGrid
from trace_bench.representations.nerf.mesh import MeshSettings, extract, write
from trace_bench.representations.nerf.occupancy import OccupancyGrid, OccupancySettings
from trace_bench.representations.nerf.rays import camera_rays, march
from trace_bench.representations.nerf.render import Shader, look
from trace_bench.representations.nerf.schedule import LevelSchedule, ResolutionSchedule
from trace_bench.representations.nerf.shading import ShadingSettings, light_positions, shade
from trace_bench.representations.settings import merged, settings_from
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.tensors import load_optimizer, write_tensors

if TYPE_CHECKING:
    from trace_bench.cameras import Cameras
    from trace_bench.representations.points import PointCloud

LEARNING_RATES = {"grid": 0.01, "networks": 0.01, "background": 0.001}
LOSSES: dict[str, Any] = {
    "sparsity": 1.0,
    "opaque": 0.0,
    "orientation": [0.0, 10.0, 1000.0, 0.5],
    "z_variance": 0.0,
    "convexity": 0.0,
}
LOSSES_MODES = ("raw", "normalised")
BACKGROUNDS = ("learned", "given")
NEED_NORMALS = ("orientation", "convexity")


class NeRF(Representation):
    """A hash-grid field in the cube of half side field.radius; starts from a density blob at the origin.

    Jitter along the rays, light, schedules and the learned background apply only in training, that is while
    gradients are recorded. Without gradients, a render shows albedo over the given background, with samples
    at the middle of each interval and at full size.

    Args:
        points: must be None; a NeRF starts from its blob.
        resolution, latent_shape: ignored.
        seed: seed of the initial parameters and of all randomness in training.
        field, hash_grid, occupancy, shading, levels, mesh: fields of `FieldSettings`, `HashGrid`,
            `OccupancySettings`, `ShadingSettings`, `LevelSchedule` and `MeshSettings`.
        samples_per_ray: steps along the cube's diagonal.
        resolution_schedule: see `ResolutionSchedule`; None uses the cameras' resolution.
        background: `learned`, an environment map that replaces the given colour in training, or `given`.
        background_augment: probability, per step, of using the given colours although `learned` is set.
        lr: learning rates of the grid, the networks and the background (Adam).
        lr_left: factor on the learning rates at the end of the run; they fall log-linearly.
        weight_decay: decoupled, as in AdamW.
        losses: weights of the terms in `losses.py`, each a number or a ramp [p0, v0, v1, p1] over the run.
        losses_mode: `raw` weights as given, or `normalised` to a view's RMS latent gradient.
    """

    initial_points: ClassVar[InitialPoints] = "unused"

    def __init__(
        self,
        points: PointCloud | None,
        resolution: int,
        latent_shape: Sequence[int],
        seed: int,
        device: torch.device | str,
        *,
        field: Mapping[str, Any] | None = None,
        hash_grid: Mapping[str, Any] | None = None,
        samples_per_ray: int = 512,
        occupancy: Mapping[str, Any] | None = None,
        levels: Mapping[str, Any] | None = None,
        resolution_schedule: Sequence[Sequence[float]] | None = None,
        background: str = "learned",
        background_augment: float = 0.0,
        shading: Mapping[str, Any] | None = None,
        lr: Mapping[str, float] | None = None,
        lr_left: float = 1.0,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        losses: Mapping[str, Any] | None = None,
        losses_mode: str = "raw",
        mesh: Mapping[str, Any] | None = None,
    ) -> None:
        if points is not None:
            raise TraceBenchError("NeRF takes no initial points; use init=none, or representation=gaussians.")
        self.lr = merged("lr", LEARNING_RATES, lr)
        self.lr_left = lr_left
        _check(background, losses_mode, samples_per_ray, background_augment, {**self.lr, "left": lr_left})
        self.device, self.seed = torch.device(device), seed
        self.shading = settings_from(ShadingSettings, "shading", shading)
        self.levels = settings_from(LevelSchedule, "levels", levels)
        self.mesh = settings_from(MeshSettings, "mesh", mesh)
        self.resolution_schedule = ResolutionSchedule(resolution_schedule)
        self.background, self.background_augment = background, background_augment
        self.losses, self.losses_mode = merged("losses", LOSSES, losses), losses_mode
        self.adam: dict[str, Any] = {"betas": tuple(betas), "eps": 1e-15, "weight_decay": weight_decay}
        self.progress = Progress(0, 1)  # of the next step
        self._make_field(
            settings_from(FieldSettings, "field", field), settings_from(HashGrid, "hash_grid", hash_grid)
        )
        radius = self.field.settings.radius
        self.n_steps, self.step = samples_per_ray, 2.0 * math.sqrt(3.0) * radius / samples_per_ray
        self.occupancy = OccupancyGrid(
            settings_from(OccupancySettings, "occupancy", occupancy), radius, self.device
        )
        self._enter(self.progress)
        self.occupancy.update(self.field.density, self.step, StepRng(seed, -1))

    def _make_field(self, settings: FieldSettings, grid: HashGrid) -> None:
        """Create the parameters and their optimisers."""
        rng = StepRng(self.seed, -1)
        first = Field.initial(settings, grid, rng)
        if self.background == "learned":
            first |= Environment.initial(rng)
        self.params = {name: torch.nn.Parameter(value.to(self.device)) for name, value in first.items()}
        self.field = Field(settings, grid, self.params)
        groups = {"grid": ["table"], "networks": list(Field.NETWORKS)}
        if self.background == "learned":
            groups["background"] = list(Environment.NETWORKS)
        self.optimizers = {
            name: torch.optim.AdamW(
                [self.params[p] for p in group], lr=self.lr[name], fused=True, **self.adam
            )
            for name, group in groups.items()
        }

    @property
    def n_primitives(self) -> int:
        """Number of parameters of the field."""
        return sum(self.params[name].numel() for name in ("table", *Field.NETWORKS))

    def render(self, cameras: Cameras, background: Tensor, with_normals: bool = False) -> Render:
        training = torch.is_grad_enabled()
        fraction, rng = self.progress.fraction, StepRng(self.seed, self.progress.k)
        if training:
            cameras = self.resolution_schedule.cameras(cameras, fraction)
        size = (len(cameras), cameras.height, cameras.width)
        rays = camera_rays(cameras, self.field.settings.radius)
        n_pixels = cameras.height * cameras.width
        jitter = torch.full((len(rays),), 0.5, device=self.device)
        shader = None
        if training:
            jitter = rng.uniform("nerf_jitter", (len(cameras), n_pixels), self.device).flatten()
        samples = march(rays, self.occupancy.at, self.step, self.n_steps, jitter)
        if training:
            shader = self._shader(cameras, samples.positions, samples.ray // n_pixels, fraction, rng)
            with_normals = with_normals or any(self._weight(name, fraction) for name in NEED_NORMALS)
        seen = look(self.field, samples, self.step, with_normals, shader)
        alpha = seen.alpha.view(*size, 1)
        behind = background.expand(len(cameras), 3)[:, None, None]
        if training and self.background == "learned":
            behind = self._environment(rays.directions.view(*size, 3), behind, rng)
        depth = seen.distance * rays.cosines / seen.alpha.clamp(min=1e-10)
        normal = None
        if seen.normal is not None:
            normal = torch.nn.functional.normalize(seen.normal, dim=-1).view(*size, 3)
        info = {"seen": seen, "directions": rays.directions, "samples": samples}
        rgb = seen.color.view(*size, 3) + (1.0 - alpha) * behind
        return Render(rgb, alpha, depth.view(*size, 1), normal, info=info)

    def _shader(
        self, cameras: Cameras, positions: Tensor, view: Tensor, fraction: float, rng: StepRng
    ) -> Shader | None:
        """The shading of this step's samples; None for plain albedo."""
        kind = self.shading.at(fraction, rng)
        if kind == "albedo":
            return None
        lights = light_positions(cameras.c2w[:, :3, 3], rng)[view]
        return lambda albedo, normals: shade(albedo, normals, positions, lights, kind, self.shading)

    def _environment(self, directions: Tensor, given: Tensor, rng: StepRng) -> Tensor:
        """The learned background [B, H, W, 3], or in some steps the given colours."""
        learned = Environment(self.params)(directions.reshape(-1, 3)).view_as(directions)
        if rng.chance("nerf_background", self.background_augment):
            return 0.0 * learned + given  # with gradients of zero, so that Adam goes on, as released
        return learned

    def _weight(self, name: str, fraction: float) -> float:
        return scheduled(self.losses[name], fraction)

    def regularisation(self, render: Render, progress: Progress, grad_rms: Tensor) -> Tensor:
        seen, directions = render.info["seen"], render.info["directions"]
        ray = render.info["samples"].ray
        made = {
            "sparsity": lambda: terms.sparsity(seen.alpha),
            "opaque": lambda: terms.opaque(seen.alpha),
            "orientation": lambda: terms.orientation(seen.weights, seen.normals, directions[ray], seen.alpha),
            "z_variance": lambda: terms.z_variance(seen.variance, seen.alpha),
            "convexity": lambda: terms.convexity(cast("Tensor", render.normal), render.alpha),
        }
        total = seen.alpha.new_zeros(())
        for name, term in made.items():
            if weight := self._weight(name, progress.fraction):
                total = total + weight * term()
        return total * grad_rms * len(render.alpha) if self.losses_mode == "normalised" else total

    def post_backward(self, render: Render, progress: Progress, grad_rms: Tensor) -> None:
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self.lr[name] * self.lr_left**progress.fraction
            optimizer.step()
        for param in self.params.values():
            param.grad = None
        self._enter(Progress(progress.k + 1, progress.n))
        if self.progress.k % self.occupancy.settings.every == 0:
            self.occupancy.update(self.field.density, self.step, StepRng(self.seed, self.progress.k))

    def _enter(self, progress: Progress) -> None:
        """Apply the schedules for the next step."""
        self.progress = progress
        self.field.active = self.levels.active(progress.fraction, self.field.grid.levels)

    def state_dict(self) -> dict[str, Any]:
        return {
            "params": {name: param.detach().clone() for name, param in self.params.items()},
            "optimizers": {name: deepcopy(o.state_dict()) for name, o in self.optimizers.items()},
            "occupancy": self.occupancy.state_dict(),
            "progress": [self.progress.k, self.progress.n],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, param in self.params.items():
                param.copy_(state["params"][name])
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, state["optimizers"][name])
        self.occupancy.load_state_dict(state["occupancy"])
        self._enter(Progress(*state["progress"]))

    def export(self, folder: Path) -> list[Path]:
        """Write the mesh as asset.ply, .obj and .glb, and asset.safetensors with the raw parameters."""
        folder.mkdir(parents=True, exist_ok=True)
        surface = extract(
            self.field.density,
            lambda points: self.field.density_and_color(points)[1],
            self.field.settings.radius,
            self.mesh,
            self.device,
        )
        tensors = {name: param.detach().cpu().contiguous() for name, param in self.params.items()}
        safe = folder / "asset.safetensors"
        write_tensors(safe, tensors, self._describe())
        return [*write(surface, folder, self.mesh), safe]

    def _describe(self) -> dict[str, str]:
        """Settings needed to interpret the tensors."""
        settings = vars(self.field.settings) | {
            name: getattr(self.field.grid, name) for name in HashGrid.__dataclass_fields__
        }
        return {name: str(value) for name, value in settings.items()} | {"active": str(self.field.active)}


def _check(background: str, losses_mode: str, samples_per_ray: int, augment: float, lr: Mapping) -> None:
    for name, value, known in (
        ("background", background, BACKGROUNDS),
        ("losses_mode", losses_mode, LOSSES_MODES),
    ):
        if value not in known:
            raise TraceBenchError(f"representation.{name}={value!r} is not one of {', '.join(known)}.")
    for name, holds, says in (
        ("samples_per_ray", samples_per_ray >= 2, f"at least 2, but is {samples_per_ray}"),
        ("background_augment", 0.0 <= augment <= 1.0, f"in [0, 1], but is {augment}"),
        ("lr", min(lr.values()) > 0.0, f"above 0, but is {dict(lr)}"),
    ):
        if not holds:
            raise TraceBenchError(f"representation.{name} must be {says}.")
