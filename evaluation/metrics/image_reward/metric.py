"""ImageReward of the renders: a model of human preference rates each picture for the bare prompt.

    image_reward = mean over views of the reward; normalised to mean 0 and standard deviation 1 on the
                   authors' training set (text-to-image samples), so negative values are common

It runs here on transformers' BLIP (`native.py`), or in the image-reward package (`official.py`), which is
incompatible with current transformers and needs a separate interpreter. The weights (1.8 GB) are downloaded
only on request. Full precision only: the head has no activations and subtracts nearly equal numbers.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import MetricUnavailable, Quantity, Score, finite
from evaluation.metrics.picture_model import WeightedMetric
from evaluation.metrics.renders import chosen_views
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError

log = logging.getLogger(__name__)
_VOCABULARY = 30522


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
        self.checkpoint, self.tokenizer_name = checkpoint, tokenizer
        self.repo, self.file, self.revision, self.download = repo, file, revision, download
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
        from evaluation.metrics.image_reward.native import TOKENS

        long = len(self._tokenizer(prompt).input_ids) > TOKENS
        if long:
            log.warning("ImageReward reads only the beginning of the prompt: %s", prompt)
        return np.asarray(self._judge(prompt, pictures), np.float32), long

    @cached_property
    def weights_file(self) -> Path:
        """The checkpoint: the configured file, else from the hub's cache, else downloaded if allowed."""
        if self.checkpoint is not None:
            path = Path(self.checkpoint).expanduser()
            if path.is_file():
                return path
            raise MetricUnavailable(
                f"ImageReward's checkpoint {path} does not exist: fix metrics.image_reward.checkpoint."
            )
        return Path(_from_hub(self.repo, self.file, self.revision, self.download))

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the checkpoint and of the tokenizer's vocabulary."""
        digest = hashlib.sha256()
        with self.weights_file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
        vocabulary = sorted(self._tokenizer.get_vocab().items())
        digest.update(repr(vocabulary).encode())
        return digest.hexdigest()

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.tokenizer_name, self.download)

    @cached_property
    def _judge(self) -> Callable[[str, Sequence[Path]], Any]:
        import torch

        from evaluation.metrics.image_reward import native, network, official

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.official_python is None:
            weights = network.load_checkpoint(self.weights_file)
            return native.NativeImageReward(weights, self._tokenizer, device, self.batch_size)
        network.read_checkpoint(self.weights_file)  # validate: the package loads any file and scores noise
        vocabulary = self._tokenizer.get_vocab()
        try:
            return official.OfficialImageReward(self.official_python, self.weights_file, vocabulary, device)
        except MetricUnavailable as error:
            self._missing = error
            raise


def load_tokenizer(name: str, download: bool) -> Any:
    """BERT's tokenizer from a folder or hub name; raises if the vocabulary differs."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=not download)
    except Exception as error:
        raise MetricUnavailable(
            f"ImageReward's tokenizer {name} is not on this machine ({type(error).__name__}): "
            f"run `hf download {name}` with a network, or set a folder with "
            "metrics.image_reward.tokenizer=FOLDER."
        ) from error
    special = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id]
    if len(tokenizer) < _VOCABULARY or special != [101, 102, 0]:
        raise TraceBenchError(
            f"metrics.image_reward.tokenizer={name} is not bert-base-uncased: it has {len(tokenizer)} "
            f"tokens, and {special} for [CLS], [SEP] and [PAD]."
        )
    return tokenizer


def _from_hub(repo: str, file: str, revision: str | None, download: bool) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(repo, file, revision=revision, local_files_only=not download)
    except Exception as error:
        raise MetricUnavailable(
            "ImageReward's weights (1.8 GB) are not on this machine: with a network, run "
            f"`hf download {repo} {file}` and `hf download bert-base-uncased`, or set "
            "metrics.image_reward.download=true; or set metrics.image_reward.checkpoint=FILE."
        ) from error
