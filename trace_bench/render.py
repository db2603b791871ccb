"""What cameras see of an asset, and what can be seen by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from trace_bench.cameras import Cameras


@dataclass
class Render:
    """What a batch of B cameras sees. Exactly one of `rgb` and `latents` is what the core distils into."""

    rgb: Tensor | None  # [B, H, W, 3] in [0, 1]; None where the representation is a latent itself
    alpha: Tensor  # [B, H, W, 1] in [0, 1]
    depth: Tensor  # [B, H, W, 1] expected z-depth in the camera's frame, world units; 0 where empty
    normal: Tensor | None = None  # [B, H, W, 3] world space, unit length where alpha > 0, else 0; on demand
    latents: Tensor | None = None  # [B, C, h, w] scaled VAE latents; None where `rgb` has to be encoded
    info: dict[str, Any] = field(default_factory=dict)  # the renderer's own (means2d, radii, ...)


class Renderable(Protocol):
    """What can be seen from cameras, whether or not it can be optimised."""

    @property
    def views_matter(self) -> bool: ...

    def render(self, cameras: Cameras, background: Tensor, with_normals: bool = False) -> Render: ...
