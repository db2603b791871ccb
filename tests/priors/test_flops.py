"""Counted TFLOP against the known figures of SD 2.1."""

from __future__ import annotations

import json

import pytest

from trace_bench.priors.flops import unit_tflop

SD21_UNET = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
SD21_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


@pytest.mark.slow
def test_sd21_unit_costs() -> None:
    unit = unit_tflop(json.dumps(SD21_UNET), json.dumps(SD21_VAE), text_length=77, resolution=512)
    assert unit["unet_fwd"] == pytest.approx(0.804, abs=0.001)
    assert unit["unet_bwd"] == pytest.approx(0.911, rel=0.02)
    assert unit["vae_enc_fwd"] == pytest.approx(1.117, abs=0.001)
    assert unit["vae_enc_bwd"] == pytest.approx(1.151, abs=0.002)
    assert unit["vae_dec"] == pytest.approx(2.515, abs=0.002)
