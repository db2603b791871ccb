"""Growing and pruning 3D Gaussians (the rules of 3DGS with the numbers of GaussianDreamer and TraCe).

Step numbers refer to a run of `reference_steps` and are scaled to the actual length. Example: with 1700
reference steps and events at 400, 500, ..., 800, a run of 300 steps densifies at 71, 88, 106, 124 and 141.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.progress import Progress

MODES = ("normalised", "raw", "prune", "off")


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
        pixels = grad.new_tensor([info["width"] / units[0], info["height"] / units[1]])  # pixels per unit
        norm = (grad.sum(dim=0) * pixels).norm(dim=-1)
        if s.mode == "normalised":
            norm = norm / grad_rms.clamp(min=1e-30)
        visible = (info["radii"][chosen] > 0).all(dim=-1).any(dim=0)
        if not self.stats:
            self.stats = {"grad2d": torch.zeros_like(norm), "count": torch.zeros_like(norm)}
        self.stats["grad2d"] += torch.where(visible, norm, 0.0)
        self.stats["count"] += visible

    @torch.no_grad()
    def run(
        self,
        params: dict[str, torch.nn.Parameter],
        optimizers: dict[str, torch.optim.Optimizer],
        event: int,
        step: int,
    ) -> None:
        """Clone, split and prune in place; replaces the parameters and updates their optimisers."""
        if self.grows and self.stats and event < self.settings.stop:
            self._grow(params, optimizers, step)
        self._prune(params, optimizers, event, step)
        self.stats = {}

    def resets(self, progress: Progress) -> bool:
        """Whether opacities are lowered after this step."""
        s = self.settings
        if s.opacity_reset_every is None or s.mode == "off":
            return False
        due = range(s.opacity_reset_every, s.stop, s.opacity_reset_every)
        return progress.k in {self._scaled(step, progress.n) for step in due}

    @torch.no_grad()
    def reset_opacity(
        self, params: dict[str, torch.nn.Parameter], optimizers: dict[str, torch.optim.Optimizer]
    ) -> None:
        """Limit every opacity to `opacity_reset_to` and reset the moments of its optimiser."""
        from gsplat.strategy.ops import reset_opa

        reset_opa(params, optimizers, self.stats, self.settings.opacity_reset_to)

    def _grow(
        self, params: dict[str, torch.nn.Parameter], optimizers: dict[str, torch.optim.Optimizer], step: int
    ) -> None:
        """Of the chosen Gaussians, clone the small and split the large ones."""
        from gsplat.strategy.ops import duplicate, split

        chosen = self._chosen(len(params["means"]))
        small = params["scales"].exp().amax(dim=-1) <= self.settings.split_scale
        clone, halve = chosen & small, chosen & ~small
        if clone.any():
            duplicate(params, optimizers, self.stats, clone)
            halve = torch.cat([halve, halve.new_zeros(int(clone.sum()))])
        if halve.any():
            devices = [halve.device] if halve.is_cuda else []
            with torch.random.fork_rng(devices=devices):  # gsplat draws from the global generator
                torch.manual_seed(StepRng(self.seed, step).generator("densify_split").initial_seed())
                split(params, optimizers, self.stats, halve)

    def _prune(
        self,
        params: dict[str, torch.nn.Parameter],
        optimizers: dict[str, torch.optim.Optimizer],
        event: int,
        step: int,
    ) -> None:
        """Remove Gaussians with low opacity and, at late events, very large ones."""
        from gsplat.strategy.ops import remove

        s = self.settings
        faint = params["opacities"].sigmoid() < s.prune_opacity
        if event > s.prune_scale_after:
            faint = faint | (params["scales"].exp().amax(dim=-1) > s.prune_scale)
        if faint.all():
            raise TraceBenchError(
                f"Every Gaussian would be pruned at step {step} (opacity below {s.prune_opacity} or size "
                f"above {s.prune_scale}); lower representation.losses.sparsity or densify.prune_opacity."
            )
        if faint.any():
            remove(params, optimizers, self.stats, faint)

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
