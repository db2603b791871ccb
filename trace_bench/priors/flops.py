"""TFLOP per item of each network, counted on the real architecture without its weights."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

from trace_bench.system.cache import entry_path, keep, kept
from trace_bench.system.flops import tflop_of

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel

_COUNT = 1  # increase when the counting changes, so that cached numbers are not reused


def _added(unet: UNet2DConditionModel) -> dict[str, torch.Tensor] | None:
    """SDXL's pooled text and size conditioning, on the current device; None for other UNets."""
    if unet.config.addition_embed_type != "text_time":
        return None
    import torch

    width = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    return {"text_embeds": torch.empty(1, width), "time_ids": torch.empty(1, 6)}


@cache
def unit_tflop(
    unet_config: str, vae_config: str, text_length: int, resolution: int, rank: int = 4
) -> dict[str, float]:
    """TFLOP per item for each field of `Work`; the UNet's backward pass is that of LoRA training.

    Counted on the meta device, so SD-sized networks take seconds and no memory. Cached on disk, because every
    job of a sweep asks for the same few values.
    """
    asked = json.dumps([_COUNT, unet_config, vae_config, text_length, resolution, rank])
    path = entry_path("flops", asked)
    unit = kept(path, json.loads)
    if unit is None:
        unit = _count(unet_config, vae_config, text_length, resolution, rank)
        keep(path, json.dumps(unit).encode())
    return unit


def _count(
    unet_config: str, vae_config: str, text_length: int, resolution: int, rank: int
) -> dict[str, float]:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from trace_bench.priors.adapter import CAMERA_DIM, add_lora

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(json.loads(unet_config))
        vae = AutoencoderKL.from_config(json.loads(vae_config)).requires_grad_(False)
        side = resolution // 2 ** (len(vae.config.block_out_channels) - 1)
        latents = torch.empty(1, vae.config.latent_channels, side, side)
        t = torch.empty(1, dtype=torch.int64)
        text = torch.empty(1, text_length, unet.config.cross_attention_dim)
        rgb = torch.empty(1, 3, resolution, resolution, requires_grad=True)
        added = _added(unet)
        unet_fwd = tflop_of(lambda: unet(latents, t, encoder_hidden_states=text, added_cond_kwargs=added))
        encode_fwd = tflop_of(lambda: vae.encode(rgb.detach()))
        encode_both = tflop_of(lambda: vae.encode(rgb).latent_dist.mean.sum().backward())
        decode = tflop_of(lambda: vae.decode(latents))
        add_lora(unet, rank)
        camera = torch.empty(1, CAMERA_DIM)

        def lora() -> torch.Tensor:
            return unet(
                latents, t, encoder_hidden_states=text, class_labels=camera, added_cond_kwargs=added
            ).sample

        with torch.no_grad():
            lora_fwd = tflop_of(lora)
        lora_both = tflop_of(lambda: lora().sum().backward())
    return {
        "unet_fwd": unet_fwd,
        "unet_bwd": lora_both - lora_fwd,
        "vae_enc_fwd": encode_fwd,
        "vae_enc_bwd": encode_both - encode_fwd,
        "vae_dec": decode,
    }
