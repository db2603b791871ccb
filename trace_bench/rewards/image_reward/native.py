"""ImageReward in this process, on transformers' BLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from trace_bench.rewards.image_reward.network import RewardNetwork

if TYPE_CHECKING:
    from PIL.Image import Image

TOKENS = 35  # including [CLS] and [SEP]
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class NativeImageReward:
    """Rewards of pictures for a prompt.

    Args:
        network: with the official weights.
        tokenizer: BERT's.
        device: cpu or cuda.
        batch_size: does not change the rewards.
    """

    def __init__(self, network: RewardNetwork, tokenizer: Any, device: str, batch_size: int) -> None:
        self.network, self.tokenizer = network.to(device), tokenizer
        self.device, self.batch_size = torch.device(device), batch_size
        self.transform = preprocessing()

    def __call__(self, prompt: str, pictures: Sequence[Image]) -> NDArray[np.float32]:
        """Rewards [N] of RGB pictures [N]."""
        text = self.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        parts = []
        for start in range(0, len(pictures), self.batch_size):
            chunk = pictures[start : start + self.batch_size]
            pixels = torch.stack([self.transform(picture) for picture in chunk]).to(self.device)
            with torch.inference_mode():
                parts.append(self.network(text.input_ids, text.attention_mask, pixels).cpu())
        return torch.cat(parts).numpy()


def preprocessing(size: int = 224) -> Compose:
    """The package's transform (CLIP's): bicubic with antialiasing on the 8-bit picture, centre crop."""
    return Compose(
        [
            Resize(size, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(size),
            ToTensor(),
            Normalize(_CLIP_MEAN, _CLIP_STD),
        ]
    )
