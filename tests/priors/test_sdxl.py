"""The SDXL prior on a random checkpoint of its format, against diffusers' own pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from sd_checkpoint import TEXT_WIDTH, make_sdxl_checkpoint
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trace_bench.priors.base import TextEmbedding, Work
from trace_bench.priors.flops import unit_tflop
from trace_bench.priors.sdxl import StableDiffusionXLPrior
from trace_bench.priors.text import embed_prompt

PROMPT, NEGATIVE = "a red cube, front view", "blurry"
T = torch.tensor([20, 500, 980])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sdxl_checkpoint(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture
def prior(folder: Path) -> StableDiffusionXLPrior:
    return StableDiffusionXLPrior(str(folder), resolution=16)


def test_a_long_prompt_is_cut_for_the_shorter_of_the_two_encoders(prior: StableDiffusionXLPrior) -> None:
    long = "a big red cube on a small green box"
    assert prior.fit(long, ", front view") == long
    prior.tokenizers[1].model_max_length = 30
    assert prior.fit(long, ", front view") == "a big red cube on a"  # 14 + 10 + 2 tokens


@pytest.fixture
def pipeline(folder: Path) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(folder, subfolder="vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(folder, subfolder="text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer_2"),
        unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
        scheduler=EulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler"),
    )


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_text_is_that_of_the_pipeline(
    prior: StableDiffusionXLPrior, pipeline: StableDiffusionXLPipeline
) -> None:
    rows = prior.embed([PROMPT, NEGATIVE])
    cond, uncond, pooled, pooled_uncond = pipeline.encode_prompt(PROMPT, negative_prompt=NEGATIVE)
    assert rows.pooled is not None
    assert rows.tokens.shape[-1] > TEXT_WIDTH
    assert torch.allclose(rows.tokens, torch.cat([cond, uncond]), atol=1e-6)
    assert torch.allclose(rows.pooled, torch.cat([pooled, pooled_uncond]), atol=1e-6)
    cached = prior.embed([NEGATIVE, PROMPT])
    assert torch.equal(cached.tokens, rows.tokens.flip(0))
    assert cached.pooled is not None
    assert torch.equal(cached.pooled, rows.pooled.flip(0))


def test_eps_is_the_pipeline_s_unet(
    prior: StableDiffusionXLPrior, pipeline: StableDiffusionXLPipeline, latents: torch.Tensor
) -> None:
    text = prior.embed([PROMPT]).expand(3)
    ids = torch.tensor([[1024, 1024, 0, 0, 1024, 1024]] * 3, dtype=torch.float32)
    added = {"text_embeds": text.pooled, "time_ids": ids}
    with torch.no_grad():
        direct = pipeline.unet(latents, T, encoder_hidden_states=text.tokens, added_cond_kwargs=added).sample
        other = pipeline.unet(
            latents, T, encoder_hidden_states=text.tokens, added_cond_kwargs=added | {"time_ids": ids / 2}
        ).sample
    assert torch.equal(prior.eps(latents, T, text), direct)
    assert not torch.allclose(other, direct)


def test_pooled_text_matters_and_follows_its_row(
    prior: StableDiffusionXLPrior, latents: torch.Tensor
) -> None:
    text = embed_prompt(prior, PROMPT, NEGATIVE)
    cond, uncond = text.plain.expand(3), text.negative.expand(3)
    guided, eps_cond, eps_uncond = prior.eps_cfg(latents, T, cond, uncond, 5.0)
    assert torch.allclose(eps_cond, prior.eps(latents, T, cond), atol=1e-5)
    assert torch.allclose(eps_uncond, prior.eps(latents, T, uncond), atol=1e-5)
    assert torch.allclose(guided, -4.0 * eps_uncond + 5.0 * eps_cond, atol=1e-5)
    mixed = prior.eps(latents, T, TextEmbedding(cond.tokens, uncond.pooled))
    assert not torch.allclose(mixed, eps_cond)


def test_vae_scale_is_its_own_and_the_vae_stays_in_single_precision(folder: Path) -> None:
    prior = StableDiffusionXLPrior(str(folder), resolution=16, dtype="bfloat16")
    assert prior.dtype == torch.bfloat16
    assert prior.vae_dtype == torch.float32
    rgb = torch.rand(2, 3, 16, 16)
    mean = prior._vae.encode(2 * rgb - 1).latent_dist.mean
    assert torch.allclose(prior.encode(rgb, torch.zeros(2, 4, 8, 8)), 0.13025 * mean, atol=1e-6)


def test_adapter_trains_with_the_pooled_text(prior: StableDiffusionXLPrior, latents: torch.Tensor) -> None:
    adapter = prior.adapter(rank=2, seed=0)
    text = prior.embed([PROMPT]).expand(3)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-3)
    before = prior.counter + Work()
    adapter.predict(latents, T, text, torch.randn(3, 16)).square().mean().backward()
    optimizer.step()
    adapter.check_trains()
    assert prior.counter - before == Work(unet_fwd=3, unet_bwd=3)


def test_every_encoder_is_part_of_the_hash(prior: StableDiffusionXLPrior) -> None:
    assert {path.parent.name for path in prior.files} == {"unet", "vae", "text_encoder", "text_encoder_2"}


SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


@pytest.mark.long
def test_sdxl_unit_costs() -> None:
    unit = unit_tflop(json.dumps(SDXL_UNET), json.dumps(SDXL_VAE), text_length=77, resolution=1024)
    assert unit["unet_fwd"] == pytest.approx(6.761, abs=0.005)
    assert unit["vae_enc_fwd"] == pytest.approx(4.879, abs=0.005)
    assert unit["vae_enc_bwd"] == pytest.approx(5.429, abs=0.01)
