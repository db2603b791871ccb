"""The texts that condition a run: the prompt with a phrase for the front, side, back and overhead view."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from trace_bench.cameras import Cameras, wrap_degrees
from trace_bench.priors.base import Prior, TextEmbedding

log = logging.getLogger(__name__)

VIEWS = ("side", "front", "back", "overhead")


@dataclass(frozen=True)
class ViewThresholds:
    """Degrees at which the view phrase changes (threestudio's names and defaults)."""

    front: float = 45.0
    back: float = 45.0
    overhead: float = 60.0

    def direction(self, elevation_deg: Tensor, azimuth_deg: Tensor) -> Tensor:
        """Index into VIEWS: int64 [B]. Later rules win, in the order side, front, back, overhead."""
        azimuth = wrap_degrees(azimuth_deg)
        index = torch.zeros_like(azimuth, dtype=torch.int64)
        index = index.masked_fill(azimuth.abs() < self.front, VIEWS.index("front"))
        index = index.masked_fill(azimuth.abs() > 180.0 - self.back, VIEWS.index("back"))
        return index.masked_fill(elevation_deg > self.overhead, VIEWS.index("overhead"))


def between_views(cameras: Cameras, device: torch.device) -> tuple[Tensor, Tensor]:
    """Whether each camera is in the front half (bool [B]), and the weight in [0, 1] of the first of its two
    neighbouring views ([B]): (front, side) in the front half, (side, back) in the back half."""
    azimuth = wrap_degrees(cameras.azimuth_deg).abs().to(device)
    front_half = azimuth < 90.0
    return front_half, torch.where(front_half, 1.0 - azimuth / 90.0, 2.0 - azimuth / 90.0)


@dataclass(frozen=True)
class PromptText:
    """Embeddings of one prompt; each field has one row, except `views` with one row per entry of VIEWS."""

    plain: TextEmbedding  # [1, L, C]
    views: TextEmbedding  # [4, L, C]
    negative: TextEmbedding  # [1, L, C]
    empty: TextEmbedding  # [1, L, C]
    cut: bool = False  # whether `views` lack the prompt's last words, which the text encoder has no room for

    def view_dependent(self, cameras: Cameras, thresholds: ViewThresholds) -> TextEmbedding:
        """The prompt with the view phrase of each camera: [B, L, C]."""
        index = thresholds.direction(cameras.elevation_deg, cameras.azimuth_deg)
        return self.views[index.to(self.views.tokens.device)]

    def view(self, name: str, n: int) -> TextEmbedding:
        """The prompt with one view phrase, for `n` cameras."""
        row = VIEWS.index(name)
        return self.views[row : row + 1].expand(n)

    def interpolated(self, cameras: Cameras) -> TextEmbedding:
        """Interpolated between front and side, or side and back, linearly in the azimuth (LucidDreamer); no
        overhead view: [B, L, C]."""
        front_half, r = between_views(cameras, self.views.tokens.device)
        n = len(cameras)
        front, side, back = (self.view(name, n) for name in ("front", "side", "back"))
        return TextEmbedding.mix(
            TextEmbedding.where(front_half, front, side), TextEmbedding.where(front_half, side, back), r
        )


def embed_prompt(
    prior: Prior, prompt: str, negative_prompt: str = "", view_phrases: bool = True
) -> PromptText:
    """Embed `prompt` alone and as "prompt, front view" etc., and the negative and empty prompts.

    Without `view_phrases`, every view gets the prompt alone.

    A prompt that is too long for the text encoder loses its last words before the view phrase, the same words
    for every view. A warning names them, once per prompt and process.
    """
    phrases = [f", {view} view" if view_phrases else "" for view in VIEWS]
    beginning = min((prior.fit(prompt, phrase) for phrase in phrases), key=len)
    left_out = prompt[len(beginning) :].strip(" ,;")
    if left_out:
        _warn("prompt with a view phrase" if view_phrases else "prompt", prompt, left_out)
    if lost := negative_prompt[len(prior.fit(negative_prompt)) :].strip(" ,;"):
        _warn("negative prompt", negative_prompt, lost)
    rows = prior.embed([prompt, *(beginning + phrase for phrase in phrases), negative_prompt, ""])
    return PromptText(
        plain=rows[0:1], views=rows[1:5], negative=rows[5:6], empty=rows[6:7], cut=bool(left_out)
    )


@cache
def _warn(kind: str, text: str, left_out: str) -> None:
    """Cached, so that each warning is given once."""
    log.warning("The %s is too long for the text encoder, which leaves out %r: %s", kind, left_out, text)
