"""Growing and pruning 3D Gaussians (the rules of 3DGS with the numbers of GaussianDreamer and TraCe).

Step numbers refer to a run of `reference_steps` and are scaled to the actual length. Example: with 1700
reference steps and events at 400, 500, ..., 800, a run of 300 steps densifies at 71, 88, 106, 124 and 141.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.progress import Progress

MODES = ("normalised", "raw", "prune", "off")
SPLIT_SHRINKS = 1.6  # a split Gaussian's halves are smaller by this factor (3DGS)


@dataclass(frozen=True)
class DensifySettings:
    """When to densify, and by which measure; lengths in world units, steps of the reference run.

    mode: the screen-space gradient that `threshold` applies to.
        normalised: d(loss) / d(position in cells of the latent) over the batch's RMS latent gradient; it does
            not depend on the scale of the method's gradient or on the resolution.
        raw: d(loss) / d(position in [-1, 1]), as released (0.0002); it scales with the method's gradient.
        prune: prune but do not grow. off: neither grow nor prune.
    """

    mode: str = "normalised"
    threshold: float = 0.1  # for the mean norm over the steps in which a Gaussian was visible
    start: int = 300  # events at multiples of `every` in (start, stop)
    stop: int = 900  # statistics are collected before it
    prune_until: int | None = None  # events from `stop` to before this step only prune; None for none
    every: int = 100
    split_scale: float = 0.04  # clone Gaussians whose longest axis is at most this, split larger ones
    prune_opacity: float = 0.05
    prune_scale: float = 0.4  # prune Gaussians whose longest axis exceeds this ...
    prune_scale_after: int = 500  # ... at events after this step
    opacity_reset_every: int | None = None  # reference steps; before `stop`, opacities are limited to ...
    opacity_reset_to: float = 0.01  # ... this value, and must grow again; never if `every` is None
    views: str = "all"  # use gradients of `all` views of the batch, or of the `last` view only
    max_growth: float | None = 0.5  # share that may grow at one event, strongest first; None for no limit
    max_gaussians: int = 100_000

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise TraceBenchError(
                f"representation.densify.mode={self.mode!r} is not one of {', '.join(MODES)}."
            )
        if self.views not in ("all", "last"):
            raise TraceBenchError(f"representation.densify.views={self.views!r} is not one of all, last.")
        positive = ("threshold", "every", "split_scale", "prune_scale", "max_growth", "max_gaussians")
        for name in (*positive, "opacity_reset_every", "opacity_reset_to"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise TraceBenchError(f"representation.densify.{name} must be above 0, but is {value}.")
        if self.prune_until is not None and self.prune_until < self.stop:
            raise TraceBenchError(
                f"representation.densify.prune_until must be at least stop={self.stop}, "
                f"but is {self.prune_until}."
            )
        if not 0 <= self.prune_opacity < 1:
            raise TraceBenchError(
                f"representation.densify.prune_opacity must be in [0, 1), but is {self.prune_opacity}."
            )


class Densifier:
    """Statistics of the screen-space gradient, and the events that use them."""

    def __init__(
        self, settings: DensifySettings, reference_steps: int | None, latent_shape: Sequence[int], seed: int
    ) -> None:
        self.settings = settings
        self.latent_size = (latent_shape[-1], latent_shape[-2])  # columns, rows
        self.reference_steps = reference_steps
        self.seed = seed
        self.stats: dict[str, Tensor] = {}  # grad2d [N] summed norms, count [N] steps in which it was visible

    @property
    def grows(self) -> bool:
        """Whether statistics are needed."""
        return self.settings.mode in {"normalised", "raw"}

    def event(self, progress: Progress) -> int | None:
        """The reference run's step whose event falls on this step; None if there is none."""
        s = self.settings
        if s.mode == "off":
            return None
        steps = range(0, s.prune_until or s.stop, s.every)
        due = [r for r in steps if r > s.start and self._scaled(r, progress.n) == progress.k]
        return due[-1] if due else None

    def _scaled(self, step: int, n: int) -> int:
        return step if self.reference_steps is None else round(step * n / self.reference_steps)

    @torch.no_grad()
    def observe(self, info: dict[str, Any], progress: Progress, grad_rms: Tensor) -> None:
        """Add this step's gradients: sum over views, then add one norm and one count per visible Gaussian."""
        chosen = slice(None) if self.settings.views == "all" else slice(-1, None)
        s = self.settings
        if not self.grows or progress.k >= self._scaled(s.stop, progress.n):
            return
        grad = info["means2d"].grad[chosen]  # [C, N, 2] per pixel
        units = (2, 2) if s.mode == "raw" else self.latent_size  # units across the screen
        summed = grad.sum(dim=0)
        # Numbers of the host, since a tensor of them would have to be sent to the device.
        per_unit = [summed[:, i] * (info[size] / units[i]) for i, size in enumerate(("width", "height"))]
        norm = torch.stack(per_unit, dim=-1).norm(dim=-1)
        if s.mode == "normalised":
            norm = norm / grad_rms.clamp(min=1e-30)
        visible = (info["radii"][chosen] > 0).all(dim=-1).any(dim=0)
        if not self.stats:
            self.stats = {"grad2d": torch.zeros_like(norm), "count": torch.zeros_like(norm)}
        self.stats["grad2d"] += torch.where(visible, norm, 0.0)
        self.stats["count"] += visible

    @torch.no_grad()
    def run(
        self, params: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, event: int, step: int
    ) -> None:
        """Clone, split and prune in place; replaces the parameters, also in the optimiser (`replace`)."""
        if self.grows and self.stats and event < self.settings.stop:
            self._grow(params, optimizer, step)
        self._prune(params, optimizer, event, step)
        self.stats = {}

    def resets(self, progress: Progress) -> bool:
        """Whether opacities are lowered after this step."""
        s = self.settings
        if s.opacity_reset_every is None or s.mode == "off":
            return False
        due = range(s.opacity_reset_every, s.stop, s.opacity_reset_every)
        return progress.k in {self._scaled(step, progress.n) for step in due}

    @torch.no_grad()
    def reset_opacity(self, params: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Limit every opacity to `opacity_reset_to` and reset its moments."""
        most = float(torch.tensor(self.settings.opacity_reset_to).logit())  # in float32, like gsplat
        replace(params, optimizer, {"opacities": params["opacities"].clamp(max=most)}, torch.zeros_like)

    def _grow(
        self, params: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, step: int
    ) -> None:
        """Of the chosen Gaussians, clone the small and split the large ones; the new ones come last."""
        chosen = self._chosen(len(params["means"]))
        small = params["scales"].exp().amax(dim=-1) <= self.settings.split_scale
        kept, clones, halved = ((~chosen | small).nonzero()[:, 0], (chosen & small).nonzero()[:, 0],
                                (chosen & ~small).nonzero()[:, 0])  # fmt: skip
        rows = torch.cat([kept, clones, halved, halved])
        values = {name: param[rows] for name, param in params.items()}
        if len(halved):
            halves = slice(len(kept) + len(clones), None)
            rng = StepRng(self.seed, step).generator("densify_split")
            offsets = torch.randn(2, len(halved), 3, generator=rng).to(rows.device, non_blocking=True)
            sizes = params["scales"][halved].exp()
            axes = rotations(params["quats"][halved])
            values["means"][halves] += torch.einsum("nij,nj,bnj->bni", axes, sizes, offsets).flatten(0, 1)
            values["scales"][halves] = (sizes / SPLIT_SHRINKS).log().repeat(2, 1)
        added = len(rows) - len(kept)
        replace(params, optimizer, values, lambda moment: torch.cat([moment[kept], _zeros(moment, added)]))
        self.stats = {name: value[rows] for name, value in self.stats.items()}

    def _prune(
        self, params: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, event: int, step: int
    ) -> None:
        """Remove Gaussians with low opacity and, at late events, very large ones."""
        s = self.settings
        faint = params["opacities"].sigmoid() < s.prune_opacity
        if event > s.prune_scale_after:
            faint = faint | (params["scales"].exp().amax(dim=-1) > s.prune_scale)
        kept = (~faint).nonzero()[:, 0]
        if len(kept) == 0:
            raise TraceBenchError(
                f"Every Gaussian would be pruned at step {step} (opacity below {s.prune_opacity} or size "
                f"above {s.prune_scale}); lower representation.losses.sparsity or densify.prune_opacity."
            )
        if len(kept) < len(faint):
            replace(params, optimizer, {name: p[kept] for name, p in params.items()}, lambda m: m[kept])
            self.stats = {name: value[kept] for name, value in self.stats.items()}

    def _chosen(self, n: int) -> Tensor:
        """Mask [n] of the Gaussians that grow: those above the threshold; if too many, the strongest."""
        mean = self.stats["grad2d"] / self.stats["count"].clamp(min=1)
        chosen = mean > self.settings.threshold
        room = max(0, self.settings.max_gaussians - n)
        if self.settings.max_growth is not None:
            room = min(room, int(self.settings.max_growth * n))
        if int(chosen.sum()) > room:
            strongest = torch.sort(mean, descending=True, stable=True).indices[:room]
            chosen = torch.zeros_like(chosen).index_fill_(0, strongest, True)
        return chosen


def replace(
    params: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    values: Mapping[str, Tensor],
    moments: Callable[[Tensor], Tensor],
) -> None:
    """Give parameters other values, of any length, and their moments in the optimiser what `moments` makes of
    them. The optimiser has one group for each parameter, with its `name`."""
    for group in optimizer.param_groups:
        name = group["name"]
        if name not in values:
            continue
        state = optimizer.state.pop(params[name], {})
        params[name] = torch.nn.Parameter(values[name])
        group["params"] = [params[name]]
        optimizer.state[params[name]] = {
            key: value if key == "step" else moments(value) for key, value in state.items()
        }


def _zeros(like: Tensor, rows: int) -> Tensor:
    return like.new_zeros(rows, *like.shape[1:])


def rotations(quats: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of quaternions wxyz [N, 4] of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y**2 + z**2), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x**2 + z**2), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x**2 + y**2),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)
