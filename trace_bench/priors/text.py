"""The texts that condition a run: the prompt with a phrase for the front, side, back and overhead view."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from trace_bench.cameras import Cameras, wrap_degrees
from trace_bench.priors.base import Prior, TextEmbedding
from trace_bench.system.errors import TraceBenchError

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
    """Embeddings of one prompt; each field has one row, except `views` and each text in `derived`, which have
    one row per entry of VIEWS."""

    plain: TextEmbedding  # [1, L, C]
    views: TextEmbedding  # [4, L, C]
    negative: TextEmbedding  # [1, L, C]
    empty: TextEmbedding  # [1, L, C]
    cut: bool = False  # whether texts lack the prompt's last words, which the text encoder has no room for
    derived: Mapping[str, TextEmbedding] = field(default_factory=dict)  # [4, L, C] each: prompt, suffix, view
    prompt: str = ""  # its words

    def view_dependent(
        self, cameras: Cameras, thresholds: ViewThresholds, derived: str | None = None
    ) -> TextEmbedding:
        """The prompt, or the text `derived` from it, with the view phrase of each camera: [B, L, C]."""
        views = self.views if derived is None else self.derived[derived]
        index = thresholds.direction(cameras.elevation_deg, cameras.azimuth_deg)
        return views[index.to(views.tokens.device)]

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
    prior: Prior,
    prompt: str,
    negative_prompt: str = "",
    suffixes: Mapping[str, str | None] | None = None,
    view_phrases: bool = True,
) -> PromptText:
    """Embed `prompt` alone and as "prompt, front view" etc., the negative and empty prompts, and the derived
    texts: for each name in `suffixes`, the prompt with that suffix and then the view phrase. A suffix None
    stands for the empty text. Without `view_phrases`, every view gets the text alone.

    A prompt that is too long for the text encoder loses its last words before the suffix and the view phrase:
    the same words for every view, and the same in all derived texts, which then differ in their suffixes
    alone. A warning names the words, once per prompt and process.

    Raises:
        TraceBenchError: a suffix leaves no room for the prompt.
    """
    phrases = [f", {view} view" if view_phrases else "" for view in VIEWS]
    kind = "prompt with a view phrase" if view_phrases else "prompt"
    beginning, is_cut = _beginning(prior, prompt, phrases, kind)
    if lost := negative_prompt[len(prior.fit(negative_prompt)) :].strip(" ,;"):
        _warn("negative prompt", negative_prompt, lost)
    texts = [prompt, *(beginning + phrase for phrase in phrases), negative_prompt, ""]

    added = {name: suffix for name, suffix in (suffixes or {}).items() if suffix is not None}
    endings = {name: [suffix + phrase for phrase in phrases] for name, suffix in added.items()}
    shortest, is_cut_more = _beginning(
        prior, prompt, [ending for each in endings.values() for ending in each], "prompt with a suffix"
    )
    if prompt and not shortest:
        raise TraceBenchError(
            f"method.prompt_suffixes ({', '.join(added)}) leaves no room for the prompt in the text encoder; "
            "shorten the suffix."
        )
    for each in endings.values():
        texts += [shortest + ending for ending in each]
    rows = prior.embed(texts)
    derived = {name: rows[7 + 4 * i : 11 + 4 * i] for i, name in enumerate(added)}
    for name in set(suffixes or {}) - set(added):
        derived[name] = rows[6:7].expand(len(VIEWS))
    return PromptText(
        plain=rows[0:1],
        views=rows[1:5],
        negative=rows[5:6],
        empty=rows[6:7],
        cut=is_cut or is_cut_more,
        derived=derived,
        prompt=prompt,
    )


def _beginning(prior: Prior, prompt: str, endings: Sequence[str], kind: str) -> tuple[str, bool]:
    """The part of `prompt` for which there is room before each ending, and whether words are left out."""
    beginning = min((prior.fit(prompt, ending) for ending in endings), key=len, default=prompt)
    left_out = prompt[len(beginning) :].strip(" ,;")
    if left_out:
        _warn(kind, prompt, left_out)
    return beginning, bool(left_out)


@cache
def _warn(kind: str, text: str, left_out: str) -> None:
    """Cached, so that each warning is given once."""
    log.warning("The %s is too long for the text encoder, which leaves out %r: %s", kind, left_out, text)
