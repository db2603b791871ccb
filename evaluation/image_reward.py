"""ImageReward of the renders: how a model of human preference rates each picture for the bare prompt.

    image_reward = mean over views of the reward; 0 is the mean and 1 the standard deviation over the authors'
                   training set (text-to-image samples), so that values below 0 are ordinary

The network is `evaluation.reward_network`: the same numbers as the image-reward package, which cannot be
installed beside current transformers. The weights are 1.8 GB and are not fetched unasked. Full precision
only: the head has no activations and subtracts numbers that are nearly equal.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluation.metric import Metric, MetricUnavailable, Quantity, Score, finite
from evaluation.renders import chosen_views, open_rgb
from evaluation.runs import Run
from trace_bench.errors import TraceBenchError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)
TOKENS = 35  # [CLS] and [SEP] among them
_VOCABULARY = 30522
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ImageReward(Metric):
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
    ) -> None:
        if views < 1 or batch_size < 1:
            raise TraceBenchError("metrics.image_reward needs views >= 1 and batch_size >= 1.")
        self.checkpoint, self.tokenizer_name = checkpoint, tokenizer
        self.repo, self.file, self.revision, self.download = repo, file, revision, download
        self.views, self.batch_size, self.device = views, batch_size, device
        self.skip_priors = tuple(skip_priors)
        self._missing: MetricUnavailable | None = None

    def applies(self, run: Run) -> bool:
        return self.concerns(run.identity.prior)

    def concerns(self, prior: str) -> bool:
        return prior not in self.skip_priors

    def files(self, run: Run) -> list[Path]:
        return [run.rgb(view) for view in chosen_views(run, self.views)]

    def weights(self, run: Run) -> str:
        if self._missing is not None:
            raise self._missing
        try:
            return self._weights_hash
        except MetricUnavailable as error:
            self._missing = error
            raise

    def settings(self, run: Run) -> dict[str, Any]:
        return {"model": "ImageReward-v1.0", "views": self.views}

    def score(self, run: Run) -> Score:
        views = chosen_views(run, self.views)
        rewards, cut = self.rewards(run.prompt, [open_rgb(run, view) for view in views])
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

    def rewards(self, prompt: str, images: Sequence[Image]) -> tuple[NDArray[np.float32], bool]:
        """Rewards [N] of RGB pictures for a prompt, and whether only its beginning was read."""
        import torch

        network, tokenizer, transform, device = self._parts
        long = len(tokenizer(prompt).input_ids) > TOKENS
        if long:
            log.warning("ImageReward reads only the beginning of the prompt: %s", prompt)
        text = tokenizer(
            prompt, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(device)
        parts = []
        for start in range(0, len(images), self.batch_size):
            pixels = torch.stack([transform(image) for image in images[start : start + self.batch_size]])
            with torch.inference_mode():
                parts.append(network(text.input_ids, text.attention_mask, pixels.to(device)).cpu())
        return torch.cat(parts).numpy(), long

    @cached_property
    def weights_file(self) -> Path:
        """The checkpoint: the file that is named, one in the hub's cache, or one fetched where that is
        allowed.
        """
        if self.checkpoint is not None:
            path = Path(self.checkpoint).expanduser()
            if path.is_file():
                return path
            raise MetricUnavailable(
                f"ImageReward's checkpoint {path} is not there: mend metrics.image_reward.checkpoint."
            )
        return Path(_from_hub(self.repo, self.file, self.revision, self.download))

    @cached_property
    def _weights_hash(self) -> str:
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
    def _parts(self) -> tuple[Any, Any, Any, Any]:
        """(network, tokenizer, preprocessing, device)"""
        import torch

        from evaluation.reward_network import load_checkpoint

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        network = load_checkpoint(self.weights_file).to(device)
        return network, self._tokenizer, preprocessing(), torch.device(device)


def preprocessing(size: int = 224) -> Any:
    """The package's transform, which is CLIP's: bicubic with antialias on the 8-bit picture, centre crop."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    return Compose(
        [
            Resize(size, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(size),
            ToTensor(),
            Normalize(_CLIP_MEAN, _CLIP_STD),
        ]
    )


def load_tokenizer(name: str, download: bool) -> Any:
    """BERT's tokenizer from a folder or a hub name; refuses one that would number the words otherwise."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=not download)
    except Exception as error:
        raise MetricUnavailable(
            f"ImageReward's tokenizer {name} is not on this machine ({type(error).__name__}): "
            f"`hf download {name}` where there is a network, or name a folder with "
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
            "ImageReward's weights (1.8 GB) are not on this machine: where there is a network, "
            f"`hf download {repo} {file}` and `hf download bert-base-uncased`, or "
            "metrics.image_reward.download=true; or name a file with metrics.image_reward.checkpoint=FILE."
        ) from error
