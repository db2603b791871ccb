"""LAION's aesthetic predictor v2: how people would rate a picture from 1 to 10, without the prompt.

    aesthetic = mean over views of w . f + b     f: OpenAI's CLIP ViT-L/14 image embedding, of unit length

The published head has five linear layers and no activation, so it is one affine map of the 768 features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import Quantity
from evaluation.metrics.picture_model import PictureModel, tensors
from trace_bench.rewards.clip_model import ClipModel
from trace_bench.system.cache import cache_dir, fetch
from trace_bench.system.errors import TraceBenchError, Unavailable
from trace_bench.system.files import sha256_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_LAYERS = (0, 2, 4, 6, 7)


class Aesthetic(PictureModel):
    """
    Args:
        url, sha256: the head's weights.
        checkpoint: path of the head's weights instead.
        clip: settings of the ClipModel that makes the features.
    """

    name: ClassVar[str] = "aesthetic"
    version: ClassVar[str] = "1"
    citation: ClassVar[str] = "Schuhmann 2022, improved aesthetic predictor; Radford et al. 2021, CLIP"
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("aesthetic", "Aesthetic", "LAION aesthetic predictor v2, 1 to 10, mean over views", True, 2),
    )
    model = "sac+logos+ava1-l14-linearMSE"

    def __init__(
        self,
        url: str,
        sha256: str,
        clip: Mapping[str, Any],
        checkpoint: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.url, self.sha256, self.checkpoint = url, sha256, checkpoint
        self.clip = ClipModel("clip", **clip, device=self.device, setting="metrics.aesthetic.clip")

    def parameters(self) -> dict[str, Any]:
        return {"clip": self.clip.name}

    def weight_files(self) -> list[Path]:
        return [self._head_file(), self.clip.weights_file]

    def _head_file(self) -> Path:
        if self.checkpoint is not None:
            path = Path(self.checkpoint).expanduser()
            if not path.is_file():
                raise Unavailable(f"{path} does not exist: fix metrics.aesthetic.checkpoint.")
            return path
        path = cache_dir() / "weights" / f"{self.sha256[:16]}.pth"
        if not path.is_file() or sha256_of(path) != self.sha256:
            try:
                fetch(self.url, self.sha256, path)
            except (OSError, ValueError) as error:
                raise Unavailable(
                    "The aesthetic predictor's weights (4 MB) are not on this machine and could not be "
                    f"downloaded ({getattr(error, 'reason', error)}): download {self.url} elsewhere "
                    "and set metrics.aesthetic.checkpoint=FILE."
                ) from error
        return path

    def rate(self, prompt: str, pictures: Sequence[Image]) -> NDArray[np.floating[Any]]:
        weight, bias = self.head
        return self.clip.embed_images(pictures, self.batch_size) @ weight + bias

    @cached_property
    def head(self) -> tuple[NDArray[np.float64], float]:
        """The affine map of unit features: w [D] and b."""
        path = self._head_file()
        state = tensors(path, "the aesthetic predictor")
        try:
            return affine(state)
        except (KeyError, RuntimeError) as error:
            raise TraceBenchError(
                f"{path} does not have the layers of the aesthetic predictor: {error}."
            ) from error


def affine(state: Mapping[str, torch.Tensor]) -> tuple[NDArray[np.float64], float]:
    """The product of the head's linear layers, in float64."""
    import torch

    weight = torch.eye(state["layers.0.weight"].shape[1], dtype=torch.float64)
    bias = torch.zeros(len(weight), dtype=torch.float64)
    for i in _LAYERS:
        layer = state[f"layers.{i}.weight"].double()
        weight, bias = layer @ weight, layer @ bias + state[f"layers.{i}.bias"].double()
    return weight[0].numpy(), float(bias[0])
