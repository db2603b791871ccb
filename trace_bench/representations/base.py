"""The interface of a representation, 3D or 2D: it renders, receives gradients and can be saved."""

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

InitialPoints = Literal["needed", "optional", "unused"]


class Representation(ABC):
    """One asset in training.

    Created by `_target_(points=PointCloud | None, resolution=pixels, latent_shape=(C, h, w), seed=int,
    device=..., **hyper)`. Every representation declares all five and documents those it ignores.

    The caller runs each step in this order:
        render = r.render(cameras, background)
        r.pre_backward(render)
        (distillation surrogate + r.regularisation(render, progress, grad_rms)).backward()
        r.post_backward(render, progress, grad_rms)
    """

    #: False if every camera sees the same image
    views_matter: ClassVar[bool] = True
    #: whether initial `points` are needed, optional, or unused; unused implies init=none
    initial_points: ClassVar[InitialPoints] = "optional"
    #: name -> optimiser; do not keep references, loading a state may replace them
    optimizers: dict[str, torch.optim.Optimizer]

    @classmethod
    def is_latent(cls, settings: Mapping[str, Any]) -> bool:
        """Whether renders are already latents and need no encoder; `settings` as in the YAML."""
        return False

    @abstractmethod
    def render(self, cameras: Cameras, background: Tensor, with_normals: bool = False) -> Render:
        """Render B cameras over `background` ([3] or [B, 3], in [0, 1]); differentiable."""

    @abstractmethod
    def regularisation(self, render: Render, progress: Progress, grad_rms: Tensor) -> Tensor:
        """Weighted sum of the representation's own losses on this render, a scalar.

        grad_rms: scalar, root mean square of the method's d(loss)/d(latents) on this batch, for relative
            weights.
        """

    def pre_backward(self, render: Render) -> None:  # noqa: B027 - nothing to do is a fine default
        """Called between render and backward, for example to retain gradients of intermediate tensors."""

    @abstractmethod
    def post_backward(self, render: Render, progress: Progress, grad_rms: Tensor) -> None:
        """Set learning rates, take the optimiser step, clear gradients, densify and prune.

        grad_rms: scalar, root mean square of the batch's d(loss)/d(latents), without regularisation.
        """

    @property
    @abstractmethod
    def n_primitives(self) -> int:
        """Size of the asset: number of Gaussians, pixels, ..."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All state that changes: parameters, optimiser states, densification statistics."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`; training then continues exactly as without the interruption."""

    @abstractmethod
    def export(self, folder: Path) -> list[Path]:
        """Write the asset's files into `folder` and return their paths."""
