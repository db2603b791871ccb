"""ImageReward's network on transformers' BLIP classes, loading the official checkpoint.

    image 224 x 224 -> ViT-L/16 -> 197 x 1024 features
    prompt, 35 tokens -> BERT-base, bidirectional, cross-attention to the features in every layer
    feature at position 0 ([CLS]) -> five linear layers without activations -> reward = (mlp - MEAN) / STD

Sources: Xu et al. 2023, ImageReward; Li et al. 2022, BLIP; the image-reward package 1.5, whose forward pass
gives bitwise identical numbers (tests/evaluation/metrics/test_image_reward_parity.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from trace_bench.system.errors import TraceBenchError

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the authors' training set
#: Parts of the checkpoint that the reward does not use.
UNUSED = {
    "text_encoder.embeddings.position_ids",
    "vision_proj.weight", "vision_proj.bias", "text_proj.weight", "text_proj.bias",
}  # fmt: skip
_VISION = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)


@dataclass(frozen=True)
class Sizes:
    """Layer sizes; the defaults are ImageReward's, tests use smaller ones."""

    image: int = 224
    vision: tuple[int, int, int] = (1024, 24, 16)  # width, layers, heads
    text: tuple[int, int, int] = (768, 12, 12)
    vocabulary: int = 30524
    positions: int = 512
    head: tuple[int, ...] = (1024, 128, 64, 16, 1)


class RewardNetwork(nn.Module):
    """Rewards of pictures for one prompt."""

    def __init__(self, sizes: Sizes | None = None) -> None:
        super().__init__()
        sizes = sizes or Sizes()
        (width, layers, heads), (text_width, text_layers, text_heads) = sizes.vision, sizes.text
        seeing = BlipVisionConfig(
            hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=heads, image_size=sizes.image, patch_size=16, layer_norm_eps=1e-6,
            attn_implementation="eager",
        )  # fmt: skip
        reading = BlipTextConfig(
            vocab_size=sizes.vocabulary, hidden_size=text_width, encoder_hidden_size=width,
            intermediate_size=4 * text_width, num_hidden_layers=text_layers, num_attention_heads=text_heads,
            max_position_embeddings=sizes.positions, layer_norm_eps=1e-12, attn_implementation="eager",
            is_decoder=True,  # required for cross-attention; the call below stays bidirectional
        )  # fmt: skip
        self.vision = BlipVisionModel(seeing)
        self.text = BlipTextModel(reading, add_pooling_layer=False)
        self.mlp = Head(text_width, sizes.head)

    def image_features(self, pixels: Tensor) -> Tensor:
        """[B, 197, 1024] of normalised pictures [B, 3, 224, 224]."""
        return self.vision(pixel_values=pixels).last_hidden_state

    def text_features(self, input_ids: Tensor, attention_mask: Tensor, image_features: Tensor) -> Tensor:
        """[B, 768] of one prompt's tokens [1, 35] paired with each picture."""
        count = len(image_features)
        states = self.text(
            input_ids=input_ids.expand(count, -1),
            attention_mask=attention_mask.expand(count, -1),
            encoder_hidden_states=image_features,
            encoder_attention_mask=torch.ones(
                image_features.shape[:2], dtype=torch.long, device=input_ids.device
            ),
            is_decoder=False,
        ).last_hidden_state
        return states[:, 0]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixels: Tensor) -> Tensor:
        """Rewards [B]."""
        features = self.text_features(input_ids, attention_mask, self.image_features(pixels))
        return (self.mlp(features)[:, 0] - MEAN) / STD


class Head(nn.Module):
    """Linear layers with the checkpoint's names; the gaps in numbering are training dropouts."""

    def __init__(self, width: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for place, before, after in zip((0, 2, 4, 6, 7), (width, *widths), widths, strict=False):
            self.layers.add_module(str(place), nn.Linear(before, after))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def map_key(key: str) -> str | None:
    """Our name for a checkpoint key; None if the reward does not use it."""
    if key.startswith("mlp."):
        return key
    inner = key.removeprefix("blip.")
    if inner in UNUSED:
        return None
    if inner.startswith("text_encoder."):
        return "text." + inner.removeprefix("text_encoder.")
    name = inner.removeprefix("visual_encoder.")
    for pattern, target in _VISION:
        if re.match(pattern, name):
            return "vision." + re.sub(pattern, target, name)
    return key  # unknown; the loader reports it


def read_checkpoint(path: Path, sizes: Sizes | None = None) -> dict[str, Tensor]:
    """The tensors of an official ImageReward.pt under our names; raises for any other file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise TraceBenchError(
            f"{path} cannot be read as ImageReward's checkpoint ({type(error).__name__}): download it again."
        ) from error
    named = ((map_key(key), value) for key, value in (state.items() if isinstance(state, dict) else ()))
    mapped = {key: value for key, value in named if key is not None}
    with torch.device("meta"):
        wanted = RewardNetwork(sizes).state_dict()
    wrong = sorted(mapped.keys() ^ wanted.keys())
    wrong += [key for key in mapped.keys() & wanted.keys() if mapped[key].shape != wanted[key].shape]
    if wrong:
        raise TraceBenchError(
            f"{path} is not ImageReward's checkpoint: {len(wrong)} of its tensors are missing, unknown or of "
            f"the wrong shape (first: {wrong[0]})."
        )
    return mapped


def load_checkpoint(path: Path, sizes: Sizes | None = None) -> RewardNetwork:
    """The network with the weights of an official ImageReward.pt."""
    state = read_checkpoint(path, sizes)
    with torch.device("meta"):
        network = RewardNetwork(sizes)
    network.load_state_dict(state, assign=True)
    places = torch.arange(network.text.config.max_position_embeddings)[None]
    network.text.embeddings.register_buffer("position_ids", places, persistent=False)
    return network.float().eval().requires_grad_(False)
