"""TFLOP per item of each network, counted on the real architecture without its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from trace_bench.system.cache import entry_path, keep, kept
from trace_bench.system.flops import tflop_of

if TYPE_CHECKING:
    import torch

    Network = tuple[torch.nn.Module, Callable[..., torch.Tensor]]  # and a call of it with one item

_COUNT = 1  # increase when the counting changes, so that cached numbers are not reused


def _unet(config: dict[str, Any], text_length: int, latents: torch.Tensor) -> Network:
    import torch
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_config(config)
    text = torch.empty(1, text_length, unet.config.cross_attention_dim)
    t, added = torch.empty(1, dtype=torch.int64), None
    if unet.config.addition_embed_type == "text_time":  # SDXL's pooled text and size conditioning
        width = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        added = {"text_embeds": torch.empty(1, width), "time_ids": torch.empty(1, 6)}

    def call(camera: torch.Tensor | None = None) -> torch.Tensor:
        return unet(
            latents, t, encoder_hidden_states=text, class_labels=camera, added_cond_kwargs=added
        ).sample

    return unet, call


def _sd3(config: dict[str, Any], text_length: int, latents: torch.Tensor) -> Network:
    import torch
    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel.from_config(config)
    text = torch.empty(1, text_length, transformer.config.joint_attention_dim)
    pooled, timestep = torch.empty(1, transformer.config.pooled_projection_dim), torch.empty(1)

    def call(camera: torch.Tensor | None = None) -> torch.Tensor:
        given = pooled if camera is None else torch.cat([pooled, camera], dim=1)
        return transformer(
            latents, encoder_hidden_states=text, pooled_projections=given, timestep=timestep
        ).sample

    return transformer, call


@cache
def unit_tflop(
    network_config: str, vae_config: str, text_length: int, resolution: int, rank: int = 4
) -> dict[str, float]:
    """TFLOP per item for each field of `Work`; the network's backward pass is that of LoRA training.

    network_config, vae_config: diffusers' configs as JSON, of a UNet or of SD3's transformer, and of its VAE.

    Counted on the meta device, so SD-sized networks take seconds and no memory. Cached on disk, because every
    job of a sweep asks for the same few values.
    """
    asked = json.dumps([_COUNT, network_config, vae_config, text_length, resolution, rank])
    path = entry_path("flops", asked)
    unit = kept(path, json.loads)
    if unit is None:
        unit = _count(network_config, vae_config, text_length, resolution, rank)
        keep(path, json.dumps(unit).encode())
    return unit


def _count(
    network_config: str, vae_config: str, text_length: int, resolution: int, rank: int
) -> dict[str, float]:
    import torch
    from diffusers import AutoencoderKL

    from trace_bench.priors.adapter import CAMERA_DIM, add_lora, add_lora_to_transformer

    config = json.loads(network_config)
    is_sd3 = "joint_attention_dim" in config
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(json.loads(vae_config)).requires_grad_(False)
        side = resolution // 2 ** (len(vae.config.block_out_channels) - 1)
        latents = torch.empty(1, vae.config.latent_channels, side, side)
        network, call = (_sd3 if is_sd3 else _unet)(config, text_length, latents)
        rgb = torch.empty(1, 3, resolution, resolution, requires_grad=True)
        forward = tflop_of(call)
        encode_fwd = tflop_of(lambda: vae.encode(rgb.detach()))
        encode_both = tflop_of(lambda: vae.encode(rgb).latent_dist.mean.sum().backward())
        decode = tflop_of(lambda: vae.decode(latents))
        (add_lora_to_transformer if is_sd3 else add_lora)(network, rank)
        camera = torch.empty(1, CAMERA_DIM)
        with torch.no_grad():
            lora_fwd = tflop_of(lambda: call(camera))
        lora_both = tflop_of(lambda: call(camera).sum().backward())
    return {
        "unet_fwd": forward,
        "unet_bwd": lora_both - lora_fwd,
        "vae_enc_fwd": encode_fwd,
        "vae_enc_bwd": encode_both - encode_fwd,
        "vae_dec": decode,
    }
