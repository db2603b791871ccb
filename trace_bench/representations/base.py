"""What a representation, 3D or 2D, is to the core: it renders, takes gradients and can be saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trace_bench.cameras import Cameras
    from trace_bench.progress import Progress
    from trace_bench.render import Render

Start = Literal["needed", "optional", "unused"]


class Representation(ABC):
    """One asset that is being made.

    Made by `_target_(points=PointCloud | None, resolution=pixels, latent_shape=(C, h, w), seed=int,
    device=..., **hyper)`; every representation declares all five and says which of them it has no use for.

    One step of the core, in this order:
        render = r.render(cameras, background)
        r.pre_backward(render)
        (distillation surrogate + r.regularisation(render, progress, grad_rms)).backward()
        r.post_backward(render, progress, grad_rms)
    """

    #: False where every camera sees the same picture
    views_matter: ClassVar[bool] = True
    #: whether initial `points` are needed, optional, or unused; unused implies init=none
    start: ClassVar[Start] = "optional"
    #: name -> optimiser; ask anew each time, since loading a state may replace them
    optimizers: dict[str, torch.optim.Optimizer]

    @classmethod
    def is_latent(cls, settings: Mapping[str, Any]) -> bool:
        """Whether renders are latents already, with nothing to encode; `settings` as in the YAML."""
        return False

    @abstractmethod
    def render(self, cameras: Cameras, background: Tensor, with_normals: bool = False) -> Render:
        """Render B cameras over `background` ([3] or [B, 3], in [0, 1]); differentiable."""

    @abstractmethod
    def regularisation(self, render: Render, progress: Progress, grad_rms: Tensor) -> Tensor:
        """Weighted sum of the representation's own losses on this render, a scalar.

        grad_rms: scalar, root mean square of the method's d(loss)/d(latents) of this batch, for weights that
            are relative to it.
        """

    def pre_backward(self, render: Render) -> None:  # noqa: B027 - nothing to do is a fine default
        """Called between render and backward, to retain what only the backward pass fills in."""

    @abstractmethod
    def post_backward(self, render: Render, progress: Progress, grad_rms: Tensor) -> None:
        """Set learning rates, take the optimiser step, clear gradients, densify and prune.

        grad_rms: scalar, root mean square of the batch's d(loss)/d(latents), regularisation aside.
        """

    @property
    @abstractmethod
    def n_primitives(self) -> int:
        """Gaussians, pixels, ...: how large the asset is."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that moves: parameters, optimiser states, statistics of the densification."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`; training then goes on as if it had never stopped."""

    @abstractmethod
    def export(self, folder: Path) -> list[Path]:
        """Write the finished asset's files into `folder` and return their paths."""
