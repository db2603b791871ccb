"""Random checkpoints with the classes and config keys of SD 2.1 and of SDXL, small enough for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.full_size import save_scheduler, save_tokenizer

TEXT_WIDTH = 16
TEXT_LENGTH = 77


def _unet() -> UNet2DConditionModel:
    """SD 2.1's UNet in everything but width: per-level head counts, linear projections, cross-attention."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=[2, 4],
        use_linear_projection=True,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=8,
    )


def _vae(scaling_factor: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=16,
        scaling_factor=scaling_factor,
    )


def _text_config(width: int, length: int = TEXT_LENGTH, **more: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=190,
        hidden_size=width,
        intermediate_size=32,
        num_attention_heads=2,
        max_position_embeddings=length,
        hidden_act="gelu",
        bos_token_id=188,
        eos_token_id=189,
        **{"num_hidden_layers": 1} | more,
    )


def make_checkpoint(
    folder: Path, prediction_type: str = "epsilon", seed: int = 0, text_length: int = TEXT_LENGTH
) -> Path:
    """Write the folder and return it; the same seed gives the same weights. A letter is a token."""
    torch.manual_seed(seed)
    _unet().save_pretrained(folder / "unet")
    _vae(0.18215).save_pretrained(folder / "vae")
    CLIPTextModel(_text_config(TEXT_WIDTH, text_length)).save_pretrained(folder / "text_encoder")
    save_scheduler(folder / "scheduler", prediction_type)
    save_tokenizer(folder / "tokenizer", text_length)
    return folder


def make_sdxl_checkpoint(folder: Path, seed: int = 0) -> Path:
    """SDXL in all but width: two text encoders, pooled text and size conditioning, no attention at first."""
    torch.manual_seed(seed)
    second_width, pooled, per_id = 24, 12, 8
    UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=[1, 2],
        attention_head_dim=[2, 4],
        use_linear_projection=True,
        cross_attention_dim=TEXT_WIDTH + second_width,
        addition_embed_type="text_time",
        addition_time_embed_dim=per_id,
        projection_class_embeddings_input_dim=pooled + 6 * per_id,
        norm_num_groups=8,
    ).save_pretrained(folder / "unet")
    _vae(0.13025).save_pretrained(folder / "vae")
    first = _text_config(TEXT_WIDTH, num_hidden_layers=2)
    CLIPTextModel(first).save_pretrained(folder / "text_encoder")
    second = _text_config(second_width, num_hidden_layers=2, projection_dim=pooled)
    CLIPTextModelWithProjection(second).save_pretrained(folder / "text_encoder_2")
    EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    ).save_pretrained(folder / "scheduler")
    save_tokenizer(folder / "tokenizer", TEXT_LENGTH)
    save_tokenizer(folder / "tokenizer_2", TEXT_LENGTH)
    return folder
