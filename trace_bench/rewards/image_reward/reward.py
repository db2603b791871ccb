"""ImageReward (Xu et al. 2023) as a reward: how people would rate a picture for a prompt.

It runs on transformers' BLIP (`native.py`). The number is normalised to mean 0 and standard deviation 1 on
the authors' training set (text-to-image samples), so negative values are common. Full precision only: the
head has no activations and subtracts nearly equal numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trace_bench.rewards.base import Reward
from trace_bench.system.cache import entry_path, keep, kept
from trace_bench.system.errors import TraceBenchError, Unavailable
from trace_bench.system.flops import tflop_of
from trace_bench.system.model_files import file_sha256

if TYPE_CHECKING:
    from PIL.Image import Image

    from trace_bench.rewards.image_reward.native import NativeImageReward

_VOCABULARY = 30522
_FETCH = "with a network, run `python -m trace_bench.prefetch metric=image_reward`"
_COUNT = 1  # increase when the counting of operations changes


class ImageReward(Reward):
    """
    Args:
        checkpoint: path of ImageReward.pt; None: the file of the hub's cache.
        tokenizer: BERT's, a name on the hub or a folder.
        repo, file, revision: the checkpoint on the hub.
        batch_size: pictures in one call; does not change the numbers.
        setting: where the command line sets these, for messages.
    """

    metrics: ClassVar[tuple[str, ...]] = ("image_reward",)

    def __init__(
        self,
        checkpoint: str | None = None,
        tokenizer: str = "bert-base-uncased",
        repo: str = "THUDM/ImageReward",
        file: str = "ImageReward.pt",
        revision: str | None = None,
        batch_size: int = 16,
        device: str = "cpu",
        setting: str = "method.reward",
    ) -> None:
        super().__init__(device)
        self.checkpoint, self.tokenizer_name = checkpoint, tokenizer
        self.repo, self.file, self.revision = repo, file, revision
        self.batch_size, self.setting = batch_size, setting
        self._tokenizer: Any = None

    def rate(self, prompt: str, pictures: Sequence[Image]) -> NDArray[np.floating[Any]]:
        return self.network(prompt, pictures)

    def files(self, download: bool) -> list[Path]:
        checkpoint = self.checkpoint_file(download)
        self.tokenizer(download)
        return [checkpoint]

    def identity(self) -> dict[str, Any]:
        if self.checkpoint is not None and Path(self.checkpoint).expanduser().is_file():
            return {"weights": file_sha256(Path(self.checkpoint).expanduser())}
        return {"repo": self.repo, "file": self.file, "revision": self.revision}

    def tflop(self) -> float:
        path = entry_path("flops", f"{_COUNT} image_reward")
        found = kept(path, json.loads)
        if found is None:
            found = _count()
            keep(path, json.dumps(found).encode())
        return float(found)

    def checkpoint_file(self, download: bool) -> Path:
        """The configured file, else from the hub's cache, else downloaded if allowed."""
        if self.checkpoint is not None:
            path = Path(self.checkpoint).expanduser()
            if path.is_file():
                return path
            raise Unavailable(
                f"ImageReward's checkpoint {path} does not exist: fix {self.setting}.checkpoint."
            )
        from huggingface_hub import hf_hub_download

        try:
            return Path(
                hf_hub_download(self.repo, self.file, revision=self.revision, local_files_only=not download)
            )
        except Exception as error:
            raise Unavailable(
                f"ImageReward's weights (1.8 GB) are not on this machine: {_FETCH}, or set "
                f"{self.setting}.checkpoint=FILE."
            ) from error

    def tokenizer(self, download: bool = False) -> Any:
        """BERT's tokenizer; raises if the vocabulary differs."""
        from transformers import AutoTokenizer

        if self._tokenizer is not None:
            return self._tokenizer
        name = self.tokenizer_name
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=not download)
        except Exception as error:
            raise Unavailable(
                f"ImageReward's tokenizer {name} is not on this machine ({type(error).__name__}): {_FETCH}, "
                f"or set a folder with {self.setting}.tokenizer=FOLDER."
            ) from error
        special = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id]
        if len(tokenizer) < _VOCABULARY or special != [101, 102, 0]:
            raise TraceBenchError(
                f"{self.setting}.tokenizer={name} is not bert-base-uncased: it has {len(tokenizer)} "
                f"tokens, and {special} for [CLS], [SEP] and [PAD]."
            )
        self._tokenizer = tokenizer
        return tokenizer

    def weights_hash(self, download: bool = False) -> str:
        """SHA-256 of the checkpoint and of the tokenizer's vocabulary."""
        digest = hashlib.sha256()
        with self.checkpoint_file(download).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
        vocabulary = sorted(self.tokenizer(download).get_vocab().items())
        digest.update(repr(vocabulary).encode())
        return digest.hexdigest()

    @cached_property
    def network(self) -> NativeImageReward:
        """The network with its tokenizer, from files on this machine."""
        from trace_bench.rewards.image_reward import native, network

        weights = network.load_checkpoint(self.checkpoint_file(download=False))
        return native.NativeImageReward(weights, self.tokenizer(), self.device, self.batch_size)


def _count() -> float:
    import torch

    from trace_bench.rewards.image_reward.native import TOKENS
    from trace_bench.rewards.image_reward.network import RewardNetwork, Sizes

    side = Sizes().image
    with torch.device("meta"), torch.inference_mode():
        network = RewardNetwork().eval()
        words, pixels = torch.ones(1, TOKENS, dtype=torch.long), torch.empty(1, 3, side, side)

        def rated() -> torch.Tensor:
            """`RewardNetwork.forward` without masks, which need real numbers and cost nothing."""
            features = network.image_features(pixels)
            read = network.text(input_ids=words, encoder_hidden_states=features, is_decoder=False)
            return network.mlp(read.last_hidden_state[:, 0])

        return tflop_of(rated)
