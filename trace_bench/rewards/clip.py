"""CLIP as a reward: 100 cos of picture and prompt, the number behind the metric clip_score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trace_bench.rewards.base import Reward
from trace_bench.rewards.clip_model import ClipModel

if TYPE_CHECKING:
    from PIL.Image import Image


@cache
def _model(model: str, pretrained: str | None, quick_gelu: bool, device: str) -> ClipModel:
    """The networks, which all runs of a process share."""
    return ClipModel(
        "reward",
        model,
        pretrained,
        quick_gelu,
        device,
        setting="method.reward",
        fetch="python -m trace_bench.prefetch method=reward_sds prior=sd21 reward=clip",
    )


class Clip(Reward):
    """Settings as those of `ClipModel`."""

    metrics: ClassVar[tuple[str, ...]] = ("clip_score", "clip_r_precision")

    def __init__(
        self, model: str, pretrained: str | None = None, quick_gelu: bool = False, device: str = "cpu"
    ) -> None:
        super().__init__(device)
        self.model = _model(model, pretrained, quick_gelu, device)

    def rate(self, prompt: str, pictures: Sequence[Image]) -> NDArray[np.floating[Any]]:
        images, text = self.model.embed_images(pictures, len(pictures)), self.model.embed_texts([prompt])
        return 100.0 * images @ text[0]

    def files(self, download: bool) -> list[Path]:
        return self.model.files(download)

    def tflop(self) -> float:
        return self.model.tflop()

    def identity(self) -> dict[str, Any]:
        own = self.model
        if own.is_local:
            return {"weights": own.weights_hash}
        return {"model": own.model, "pretrained": own.pretrained, "quick_gelu": own.quick_gelu}
