"""ImageReward of the renders: a model of human preference rates each picture for the bare prompt.

    image_reward = mean over views of the reward; normalised to mean 0 and standard deviation 1 on the
                   authors' training set (text-to-image samples), so negative values are common

It runs here on transformers' BLIP (`trace_bench.rewards.image_reward`), or in the image-reward package
(`official.py`), which is incompatible with current transformers and needs a separate interpreter. The weights
(1.8 GB) are downloaded only on request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import Quantity, Score, finite
from evaluation.metrics.picture_model import WeightedMetric
from evaluation.metrics.renders import chosen_views, open_rgb
from trace_bench.rewards.image_reward.reward import ImageReward as Network
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import Unavailable

log = logging.getLogger(__name__)


class ImageReward(WeightedMetric):
    name: ClassVar[str] = "image_reward"
    version: ClassVar[str] = "1"
    citation: ClassVar[str] = "Xu et al. 2023, ImageReward"
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("image_reward", "ImageReward", "ImageReward-v1.0, mean over views", True, 3),
    )

    def __init__(
        self,
        checkpoint: str | None = None,
        tokenizer: str = "bert-base-uncased",
        repo: str = "THUDM/ImageReward",
        file: str = "ImageReward.pt",
        revision: str | None = None,
        download: bool = False,
        views: int = 4,
        batch_size: int = 16,
        device: str = "auto",
        skip_priors: Sequence[str] = (),
        official_python: str | None = None,
    ) -> None:
        super().__init__(views, batch_size, device, skip_priors)
        self.download = download
        self.network = Network(
            checkpoint, tokenizer, repo, file, revision, batch_size, setting="metrics.image_reward"
        )
        self.official_python = official_python

    def settings(self, run: Run) -> dict[str, Any]:
        by = {} if self.official_python is None else {"computed_by": "image-reward"}
        return {"model": "ImageReward-v1.0", "views": self.views} | by

    def score(self, run: Run) -> Score:
        views = chosen_views(run, self.views)
        rewards, cut = self.rewards(run.prompt, [run.rgb(view) for view in views])
        rows = [
            {
                "view": view,
                "azimuth_deg": finite(run.cameras[view]["azimuth_deg"], 4),
                "reward": finite(reward),
            }
            for view, reward in zip(views, rewards, strict=True)
        ]
        details = {"model": "ImageReward-v1.0", "prompt_cut": cut}
        return Score({"image_reward": finite(float(rewards.mean()))}, rows, details)

    def rewards(self, prompt: str, pictures: Sequence[Path]) -> tuple[NDArray[np.float32], bool]:
        """Rewards [N] of RGB pictures [N] for a prompt, and whether the prompt was truncated."""
        from trace_bench.rewards.image_reward.native import TOKENS

        long = len(self._tokenizer(prompt).input_ids) > TOKENS
        if long:
            log.warning("ImageReward reads only the beginning of the prompt: %s", prompt)
        return np.asarray(self._judge(prompt, pictures), np.float32), long

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the checkpoint and of the tokenizer's vocabulary."""
        return self.network.weights_hash(self.download)

    @cached_property
    def _tokenizer(self) -> Any:
        return self.network.tokenizer(self.download)

    @cached_property
    def _judge(self) -> Callable[[str, Sequence[Path]], Any]:
        import torch

        from evaluation.metrics.image_reward import official
        from trace_bench.rewards.image_reward.network import read_checkpoint

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        checkpoint = self.network.checkpoint_file(self.download)
        if self.official_python is None:
            self.network.device = device
            return lambda prompt, pictures: self.network.rate(prompt, [open_rgb(path) for path in pictures])
        read_checkpoint(checkpoint)  # validate: the package loads any file and scores noise
        vocabulary = self._tokenizer.get_vocab()
        try:
            return official.OfficialImageReward(self.official_python, checkpoint, vocabulary, device)
        except Unavailable as error:
            self._missing = error
            raise
