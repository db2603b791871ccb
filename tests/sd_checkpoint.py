"""Random checkpoints with the classes and config keys of SD 2.1, SDXL and SD 3, small enough for tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

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


def save_flow_scheduler(folder: Path) -> None:
    """The scheduler of SD 3."""
    FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0).save_pretrained(folder)


def make_flow_checkpoint(folder: Path, seed: int = 0, text_length: int = TEXT_LENGTH) -> Path:
    """`make_checkpoint` with a second UNet, for the velocity of a flow."""
    make_checkpoint(folder, seed=seed, text_length=text_length)
    _unet().save_pretrained(folder / "unet_flow")
    save_flow_scheduler(folder / "scheduler_flow")
    return folder


def make_sd3_checkpoint(folder: Path, seed: int = 0, text_length: int = TEXT_LENGTH, t5: bool = True) -> Path:
    """SD 3-medium in all but width and depth; with `t5`, the third text encoder."""
    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=96,
    )
    transformer.save_pretrained(folder / "transformer")
    AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=64,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).save_pretrained(folder / "vae")
    for name in ("text_encoder", "text_encoder_2"):
        config = _text_config(32, text_length, num_hidden_layers=2, projection_dim=32)
        CLIPTextModelWithProjection(config).save_pretrained(folder / name)
        save_tokenizer(folder / name.replace("text_encoder", "tokenizer"), text_length)
    index = {
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "text_encoder_3": ["transformers", "T5EncoderModel"] if t5 else [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    if t5:
        T5EncoderModel(
            T5Config(
                vocab_size=128, d_model=64, d_kv=16, d_ff=37, num_layers=2, num_heads=4,
                feed_forward_proj="gated-gelu",
            )
        ).save_pretrained(folder / "text_encoder_3")  # fmt: skip
        letters = [(chr(c), -4.0) for c in range(32, 127)]
        pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("\u2581", -4.0), *letters]
        T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(folder / "tokenizer_3")
    save_flow_scheduler(folder / "scheduler")
    return folder
