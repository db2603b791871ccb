"""The shipped tiny models: formats, budgets, and that samples look like their captions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import trace_bench
from trace_bench.cameras import EvaluationRig
from trace_bench.toyworld import scene_from_prompt, training_prompts, vocabulary

MODELS = Path(trace_bench.__file__).parent / "models"
PRIOR, CLIP = MODELS / "tiny_prior", MODELS / "tiny_clip"
MIB = 2**20


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(PRIOR, local_files_only=True).to(torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def clip():
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{CLIP}")
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{CLIP}")


def test_the_code_on_the_model_card_runs_as_typed(tmp_path, monkeypatch):
    """Here the package's folder is where the card says; the card's picture is an image of 64 pixels."""
    from PIL import Image

    (tmp_path / "trace_bench").symlink_to(MODELS.parent)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"^```python\n(.*?)^```$", (PRIOR / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    exec(code[1], {})
    picture = Image.open(tmp_path / "duck.png")
    assert picture.size == (64, 64)
    assert max(high - low for low, high in picture.getextrema()) > 100, "a picture, not one colour"


def test_weights_are_half_precision_safetensors_within_the_budget():
    from safetensors import safe_open

    files = [f for f in MODELS.rglob("*") if f.is_file()]
    assert not [f for f in files if f.suffix in {".bin", ".pt", ".ckpt", ".pkl", ".pth"}]
    weights = [f for f in files if f.suffix == ".safetensors"]
    assert len(weights) == 6
    sizes = {f: f.stat().st_size for f in weights}
    flow = sum(size for f, size in sizes.items() if f.parent.name == "unet_flow")
    assert 0 < flow <= 6 * MIB
    assert sum(sizes.values()) - flow <= 16 * MIB
    for path in weights:
        with safe_open(path, "pt") as stored:
            kinds = {stored.get_tensor(name).dtype for name in stored.keys()}  # noqa: SIM118 (no mapping)
        assert torch.float16 in kinds
        assert kinds <= {torch.float16, torch.int64}, path


def test_a_unet_item_costs_at_most_0_22_gigaflop():
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    for part in ("unet", "unet_v", "unet_flow"):
        unet = UNet2DConditionModel.from_pretrained(PRIOR, subfolder=part, local_files_only=True)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            unet(torch.zeros(1, 4, 16, 16), 500, torch.zeros(1, 16, unet.config.cross_attention_dim))
        assert counter.get_total_flops() <= 0.22e9


def test_schedules_are_those_of_stable_diffusion():
    for part, prediction in (("scheduler", "epsilon"), ("scheduler_v", "v_prediction")):
        config = json.loads((PRIOR / part / "scheduler_config.json").read_text())
        expected = {
            "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1,
            "num_train_timesteps": 1000, "set_alpha_to_one": False, "clip_sample": False,
            "prediction_type": prediction,
        }  # fmt: skip
        assert {k: config[k] for k in expected} == expected


def test_known_words_are_one_token_and_unknown_ones_are_not():
    from transformers import CLIPTokenizer

    for folder in (PRIOR / "tokenizer", CLIP):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        assert all(len(tokenizer.tokenize(word)) == 1 for word in vocabulary())
        assert len(tokenizer.tokenize("zebra")) > 1
        longest = tokenizer("a yellow cylinder on an orange cylinder, overhead view").input_ids
        assert len(longest) <= tokenizer.model_max_length == 16
        assert tokenizer.unk_token_id not in longest[1:-1]


@pytest.mark.slow
def test_autoencoder_restores_pictures_and_its_latents_have_unit_deviation(pipeline):
    cameras = EvaluationRig(n_views=4).cameras()
    images = torch.cat([
        scene_from_prompt(p).render(cameras, (0.5, 0.5, 0.5)).rgb for p in training_prompts()[::120]
    ]).permute(0, 3, 1, 2) * 2 - 1  # fmt: skip
    with torch.no_grad():
        latents = pipeline.vae.encode(images).latent_dist.mean
        decoded = pipeline.vae.decode(latents).sample
    assert latents.shape[1:] == (4, 16, 16)
    assert (decoded - images).square().mean() < 0.01
    assert 0.7 < (latents * pipeline.vae.config.scaling_factor).std() < 1.4


def test_v_network_agrees_with_the_epsilon_network(pipeline):
    """For the same noisy picture, their clean latents must be close to each other and to the truth."""
    from diffusers import UNet2DConditionModel

    v_net = UNet2DConditionModel.from_pretrained(PRIOR, subfolder="unet_v", local_files_only=True)
    prompt, t = "a red cube", 400
    picture = (
        scene_from_prompt(prompt).render(EvaluationRig(n_views=8).cameras()).rgb.permute(0, 3, 1, 2) * 2 - 1
    )
    alpha = pipeline.scheduler.alphas_cumprod[t]
    with torch.no_grad():
        text = pipeline.encode_prompt(prompt, "cpu", 1, False)[0].expand(8, -1, -1)
        clean = pipeline.vae.encode(picture).latent_dist.mean * pipeline.vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        by_eps = (noisy - (1 - alpha).sqrt() * pipeline.unet(noisy, t, text).sample) / alpha.sqrt()
        by_v = alpha.sqrt() * noisy - (1 - alpha).sqrt() * v_net(noisy, t, text).sample
    assert (by_eps - clean).square().mean() < 0.25
    assert (by_v - clean).square().mean() < 0.25
    assert (by_eps - by_v).square().mean() < 0.15


def test_flow_network_agrees_with_the_truth(pipeline):
    """Its clean latents x - sigma v, at the level of the test above, and its schedule is that of SD 3."""
    from diffusers import UNet2DConditionModel

    config = json.loads((PRIOR / "scheduler_flow" / "scheduler_config.json").read_text())
    assert (config["_class_name"], config["shift"]) == ("FlowMatchEulerDiscreteScheduler", 3.0)
    flow = UNet2DConditionModel.from_pretrained(PRIOR, subfolder="unet_flow", local_files_only=True)
    prompt, alpha = "a red cube", pipeline.scheduler.alphas_cumprod[400]
    sigma = (1 - alpha).sqrt() / (alpha.sqrt() + (1 - alpha).sqrt())
    picture = (
        scene_from_prompt(prompt).render(EvaluationRig(n_views=8).cameras()).rgb.permute(0, 3, 1, 2) * 2 - 1
    )
    with torch.no_grad():
        text = pipeline.encode_prompt(prompt, "cpu", 1, False)[0].expand(8, -1, -1)
        clean = pipeline.vae.encode(picture).latent_dist.mean * pipeline.vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        noisy = (1 - sigma) * clean + sigma * noise
        by_flow = noisy - sigma * flow(noisy, 1000 * sigma, text).sample
    assert (by_flow - clean).square().mean() < 0.25


def test_clip_ranks_true_renders_first(clip):
    from PIL import Image

    model, preprocess, tokenizer = clip
    prompts = [p for p in training_prompts() if " on " not in p][::12]
    cameras = EvaluationRig(n_views=1).cameras()
    renders = [scene_from_prompt(p).render(cameras).rgb[0] for p in prompts]
    images = [preprocess(Image.fromarray((r * 255).byte().numpy())) for r in renders]
    with torch.no_grad():
        scores = (
            model.encode_image(torch.stack(images), normalize=True)
            @ model.encode_text(tokenizer(prompts), normalize=True).T
        )
    assert (scores.argmax(1) == torch.arange(len(prompts))).float().mean() >= 0.9


def test_samples_are_ranked_first_for_their_own_captions(clip, pipeline):
    """A small version of the acceptance test (256 samples, 50 steps) reported in the model card."""
    model, preprocess, tokenizer = clip
    prompts = ["a red cube", "a blue torus", "a yellow cone", "a green sphere", "a purple mug", "a duck",
               "a red mushroom", "an orange cylinder on a blue cube"]  # fmt: skip
    images = pipeline(
        prompts, num_inference_steps=20, guidance_scale=6.0, generator=torch.Generator().manual_seed(0)
    ).images
    with torch.no_grad():
        features = model.encode_image(torch.stack([preprocess(i) for i in images]), normalize=True)
        scores = features @ model.encode_text(tokenizer(prompts), normalize=True).T
    assert (scores.argmax(1) == torch.arange(len(prompts))).sum() >= 7


def test_model_cards_are_there():
    for folder in (PRIOR, CLIP):
        card = (folder / "README.md").read_text()
        assert "Apache-2.0" in card
        assert "held-out" in card
