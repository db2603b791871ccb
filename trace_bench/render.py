"""Renders, and the interface of everything that can be rendered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from trace_bench.cameras import Cameras


@dataclass
class Render:
    """Views of B cameras. Exactly one of `rgb` and `latents` is distilled into."""

    rgb: Tensor | None  # [B, H, W, 3] in [0, 1]; None if the representation is itself a latent
    alpha: Tensor  # [B, H, W, 1] in [0, 1]
    depth: Tensor  # [B, H, W, 1] expected z-depth in the camera's frame, world units; 0 where empty
    normal: Tensor | None = None  # [B, H, W, 3] world space, unit length where alpha > 0, else 0; on request
    latents: Tensor | None = None  # [B, C, h, w] scaled VAE latents; None if `rgb` must be encoded
    info: dict[str, Any] = field(default_factory=dict)  # renderer-specific (means2d, radii, ...)


class Renderable(Protocol):
    """Anything that cameras can render, whether or not it can be optimised."""

    @property
    def views_matter(self) -> bool: ...

    def render(self, cameras: Cameras, background: Tensor, with_normals: bool = False) -> Render: ...
