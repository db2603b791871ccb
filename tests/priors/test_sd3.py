"""The SD 3 prior on a random checkpoint of its format, against diffusers' own pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from diffusers import StableDiffusion3Pipeline as Pipeline
from omegaconf import OmegaConf
from sd_checkpoint import TEXT_LENGTH, make_sd3_checkpoint
from transformers import AutoTokenizer, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

from benchmarks.full_size import sd3_tflop
from trace_bench.diffusion.flow import sigma_of
from trace_bench.priors.base import Work
from trace_bench.priors.sd3 import StableDiffusion3Prior
from trace_bench.sweeps import budget
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError

PROMPT, NEGATIVE = "a red cube, front view", "blurry"
T = torch.tensor([20, 500, 980])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd3_checkpoint(tmp_path_factory.mktemp("sd3") / "sd3")


@pytest.fixture
def prior(folder: Path) -> StableDiffusion3Prior:
    return StableDiffusion3Prior(str(folder), resolution=64)


@pytest.fixture
def pipeline(folder: Path) -> Pipeline:
    clips = [CLIPTextModelWithProjection.from_pretrained(folder / f"text_encoder{n}") for n in ("", "_2")]
    return Pipeline(
        transformer=SD3Transformer2DModel.from_pretrained(folder / "transformer"),
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=clips[0],
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder_2=clips[1],
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        text_encoder_3=T5EncoderModel.from_pretrained(folder / "text_encoder_3"),
        tokenizer_3=AutoTokenizer.from_pretrained(folder / "tokenizer_3"),
    )


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(0))


def test_text_is_that_of_the_pipeline(prior: StableDiffusion3Prior, pipeline: Pipeline) -> None:
    rows = prior.embed([PROMPT, NEGATIVE])
    cond, uncond, pooled, pooled_uncond = pipeline.encode_prompt(PROMPT, None, None, negative_prompt=NEGATIVE)
    assert rows.tokens.shape == (2, TEXT_LENGTH + 256, 64)
    assert rows.pooled is not None
    assert torch.allclose(rows.tokens, torch.cat([cond, uncond]), atol=1e-5)
    assert torch.allclose(rows.pooled, torch.cat([pooled, pooled_uncond]), atol=1e-5)


def test_without_t5_its_tokens_are_zeros(folder: Path, prior: StableDiffusion3Prior, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "two")
    for name in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(tmp_path / "two" / name)
    with pytest.raises(TraceBenchError, match=r"text_encoder_3/config\.json is missing"):
        StableDiffusion3Prior(str(tmp_path / "two"), resolution=64)  # cut off: the index names it
    index = tmp_path / "two" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"text_encoder_3": [None, None]}))
    two = StableDiffusion3Prior(str(tmp_path / "two"), resolution=64)
    one, other = two.embed([PROMPT]), prior.embed([PROMPT])
    assert torch.equal(one.tokens[:, :TEXT_LENGTH], other.tokens[:, :TEXT_LENGTH])
    assert one.tokens.shape == other.tokens.shape
    assert not one.tokens[:, TEXT_LENGTH:].any()
    assert other.tokens[:, TEXT_LENGTH:].any()


def test_the_transformer_is_called_as_by_the_pipeline(
    prior: StableDiffusion3Prior, pipeline: Pipeline, latents: torch.Tensor
) -> None:
    """With 1000 sigma as its timestep, never t; and eps is x + (1 - sigma) v."""
    text = prior.embed([PROMPT]).expand(3)
    sigma = prior.sigmas[T]
    with torch.no_grad():
        direct = pipeline.transformer(
            latents, timestep=1000 * sigma, encoder_hidden_states=text.tokens, pooled_projections=text.pooled
        ).sample
    assert torch.allclose(prior.velocity(latents, sigma, text), direct, atol=1e-6)

    level = sigma_of(prior.alphas_cumprod[T])
    state = latents * torch.hypot(1 - level, level).view(-1, 1, 1, 1)
    with torch.no_grad():
        v = pipeline.transformer(
            state, timestep=1000 * level, encoder_hidden_states=text.tokens, pooled_projections=text.pooled
        ).sample
    expected = state + (1 - level).view(-1, 1, 1, 1) * v
    assert torch.allclose(prior.eps(latents, T, text), expected, atol=1e-5)


def test_vae_has_scale_and_shift(prior: StableDiffusion3Prior, pipeline: Pipeline) -> None:
    rgb = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        mean = pipeline.vae.encode(2 * rgb - 1).latent_dist.mean
        z = prior.encode(rgb, torch.zeros(2, 16, 8, 8))
        assert torch.allclose(z, (mean - 0.0609) * 1.5305, atol=1e-5)
        decoded = (pipeline.vae.decode(mean).sample / 2 + 0.5).clamp(0, 1)
        assert torch.allclose(prior.decode(z), decoded, atol=1e-5)


def test_adapter(prior: StableDiffusion3Prior, latents: torch.Tensor) -> None:
    """LoRA on both halves of every block's attention but where it has no effect; the camera counts."""
    text, camera = prior.embed([PROMPT]).expand(3), torch.randn(3, 16)
    adapter = prior.adapter(rank=2, seed=0)
    names = [name for name, p in adapter.denoiser.unet.named_parameters() if p.requires_grad]
    lora = {name.partition(".attn.")[2].partition(".lora_")[0] for name in names if "lora_" in name}
    assert lora == {
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_add_out",
    }
    assert all("lora_" in name or name.startswith("time_text_embed.camera.") for name in names)

    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    before = prior.counter + Work()
    adapter.predict(latents, T, text, camera).square().mean().backward()
    assert prior.counter - before == Work(unet_fwd=3, unet_bwd=3)
    optimizer.step()
    adapter.check_trains()  # every layer, in one step
    with torch.no_grad():
        seen, other = (adapter.predict(latents, T, text, view) for view in (camera, camera.flip(0)))
    assert not torch.allclose(seen, other)
    assert all(3 in p.shape for p in prior.adapter(rank=3, seed=0).lora_parameters())


def test_at_first_the_adapter_is_the_model_plus_a_camera(
    prior: StableDiffusion3Prior, latents: torch.Tensor
) -> None:
    text = prior.embed([PROMPT]).expand(3)
    adapter = prior.adapter(rank=2, seed=0)
    for parameter in adapter.denoiser.unet.time_text_embed.camera.parameters():
        parameter.data.zero_()
    with torch.no_grad():
        eps = adapter.to_eps(adapter.predict(latents, T, text, torch.randn(3, 16)), latents, T)
    assert torch.allclose(eps, prior.eps(latents, T, text), atol=1e-5)


def test_half_precision(folder: Path, latents: torch.Tensor) -> None:
    """The latents, the VAE and the camera stay in single precision."""
    prior = StableDiffusion3Prior(str(folder), resolution=64, dtype="bfloat16")
    text = prior.embed([PROMPT]).expand(3)
    assert prior.eps(latents, T, text).dtype == torch.float32
    assert prior.vae_dtype == torch.float32
    adapter = prior.adapter(rank=2, seed=0)
    adapter.predict(latents, T, text, torch.randn(3, 16)).square().mean().backward()
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.parameters())


@pytest.mark.parametrize(
    ("resolution", "says"),
    [
        (56, "prior.resolution=56 does not give whole patches of latents; use a multiple of 16, up to 1536."),
        (1552, "prior.resolution=1552 does not give whole patches of latents; use a multiple of 16, up to"),
    ],
)
def test_odd_latents_are_refused(folder: Path, resolution: int, says: str) -> None:
    """7 x 7 latents would come out as 6 x 6."""
    for refuse in (
        lambda: StableDiffusion3Prior(str(folder), resolution=resolution),
        lambda: StableDiffusion3Prior.check_files(
            str(folder), resolution=resolution, adapter=False, download=False
        ),
    ):
        with pytest.raises(TraceBenchError) as error:
            refuse()
        assert str(error.value).startswith(says)


def test_another_scheduler_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "sd3")
    path = tmp_path / "sd3" / "scheduler" / "scheduler_config.json"
    whole = json.loads(path.read_text())
    for change, says in (
        ({"_class_name": "DDIMScheduler"}, "is DDIMScheduler, but a flow prior needs FlowMatchEulerDiscrete"),
        ({"use_dynamic_shifting": True}, "has use_dynamic_shifting, which is not supported"),
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(TraceBenchError, match=says):
            StableDiffusion3Prior(str(tmp_path / "sd3"), resolution=64)


def test_every_part_is_in_the_hash(prior: StableDiffusion3Prior) -> None:
    parts = {"transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"}
    assert {path.parent.name for path in prior.files} == parts


@pytest.mark.slow
def test_the_cost_of_a_folder_is_that_of_its_prior(prior: StableDiffusion3Prior, folder: Path) -> None:
    spec = {
        "_target_": "trace_bench.priors.sd3.StableDiffusion3Prior", "repo": str(folder), "resolution": 64,
        "architecture": {"unet": {}},
    }  # fmt: skip
    unit = budget.unit_costs(json.dumps(spec))
    assert prior.tflop(Work(unet_fwd=2, unet_bwd=1)) == pytest.approx(2 * unit["unet_fwd"] + unit["unet_bwd"])


@pytest.mark.long
def test_full_size() -> None:
    """Parameters and TFLOP of Stable Diffusion 3 medium, on the meta device."""
    architecture = OmegaConf.to_container(OmegaConf.load(Path(conf_dir()) / "architecture" / "sd3.yaml"))
    assert isinstance(architecture, dict)
    with torch.device("meta"):
        transformer = SD3Transformer2DModel.from_config(architecture["transformer"])
        vae = AutoencoderKL.from_config(architecture["vae"])
    assert [sum(p.numel() for p in network.parameters()) for network in (transformer, vae)] == [
        2_028_328_000,
        83_819_683,
    ]
    wanted = {512: (2.107, 1.118, 1.152, 2.515), 1024: (8.904, 4.883, 5.432, 10.472)}
    for resolution, numbers in wanted.items():
        unit = sd3_tflop(resolution)
        found = [unit[name] for name in ("unet_fwd", "vae_enc_fwd", "vae_enc_bwd", "vae_dec")]
        assert found == pytest.approx(numbers, abs=5e-4)
