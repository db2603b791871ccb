"""torch.compile with the batch sizes of all methods in one process: how often it compiles.

The UNet and the VAE have SD 2.1's topology and few channels. A counting backend replaces inductor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from configured import NAMES, configured
from sd_checkpoint import make_sd3_checkpoint

from benchmarks.full_size import TEXT_ENCODER, sd21, write_checkpoints
from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.priors import latent_diffusion
from trace_bench.priors.sd3 import StableDiffusion3Prior
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.representations.image import Image
from trace_bench.seeding import Rng

SIZES = (2, 3, 1, 4, 8, 12)
#: One for each width of the UNet's blocks (320, 640 and 1280 in SD 2.1), for a batch of 1 and for all others.
BLOCKS = 3 * 2
SIDE = 16  # of the latents; a smaller one would end in maps of one pixel, unlike SD 2.1


def thin(folder: Path, text_width: int) -> tuple[Path, Path]:
    unet, vae = sd21()
    unet |= {
        "sample_size": SIDE,
        "block_out_channels": [16, 32, 64, 64],
        "attention_head_dim": [1, 2, 4, 4],
        "cross_attention_dim": text_width,
        "norm_num_groups": 8,
    }
    vae |= {"block_out_channels": [8, 16, 32, 32], "norm_num_groups": 4}
    text = {
        "hidden_size": text_width,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    tokens = {"vocab_size": 190, "bos_token_id": 188, "eos_token_id": 189}
    return write_checkpoints(folder, unet, vae, TEXT_ENCODER | text | tokens, torch.float32)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[tuple[Path, Path]]:
    """Two models with different text encoders, like SD 2.1 and SD 1.5, each with its adapter's base."""
    return [thin(tmp_path_factory.mktemp("thin") / str(width), width) for width in (32, 16)]


def load(checkpoint: tuple[Path, Path], compile: bool = True) -> StableDiffusionPrior:
    """The prior in the memory format that it has on a GPU."""
    base, adapter = checkpoint
    prior = StableDiffusionPrior(
        str(base), resolution=8 * SIDE, variant="fp16", adapter_repo=str(adapter), compile=compile
    )
    for network in (prior._denoiser.unet, prior._vae, prior._adapter_network.unet):
        network.to(memory_format=torch.channels_last)
    return prior


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts compilations of UNet blocks and of the encoder; starts from torch's own limit."""
    counts: Counter[str] = Counter()

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        convolves = any("conv" in str(node.target) for node in graph.graph.nodes)
        counts["encoder" if convolves else "block"] += 1
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    with torch._dynamo.config.patch(cache_size_limit=8):
        yield counts
    torch._dynamo.reset()


def predict(prior: StableDiffusionPrior, n: int) -> torch.Tensor:
    latents = torch.randn(n, *prior.latent_shape, generator=torch.Generator().manual_seed(n))
    return prior.eps(latents, torch.full((n,), 500), prior.embed(["a red cube"]).expand(n))


def encode(prior: StableDiffusionPrior, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The latents of n pictures and the gradient of their sum."""
    generator = torch.Generator().manual_seed(n)
    rgb = torch.rand(n, 3, 8 * SIDE, 8 * SIDE, generator=generator, requires_grad=True)
    latents = prior.encode(rgb, torch.zeros(n, *prior.latent_shape))
    return latents.detach(), torch.autograd.grad(latents.sum(), rgb)[0]


@pytest.mark.slow
def test_no_batch_size_compiles_again_except_1(compiled, checkpoints):
    prior, plain = load(checkpoints[0]), load(checkpoints[0], compile=False)
    for n in SIZES:
        assert torch.allclose(predict(prior, n), predict(plain, n), atol=1e-5)
        for found, expected in zip(encode(prior, n), encode(plain, n), strict=True):
            assert torch.allclose(found, expected, atol=1e-5)
    assert compiled == {"block": BLOCKS, "encoder": 2}


@pytest.mark.slow
def test_a_second_prior_has_room(compiled, checkpoints):
    for checkpoint in checkpoints:
        prior = load(checkpoint)
        for n in (2, 1):
            predict(prior, n)
    assert compiled == {"block": 2 * BLOCKS}


def test_the_adapter_is_not_compiled(compiled, checkpoints):
    prior = load(checkpoints[0])
    adapter = prior.adapter(rank=4, seed=0)
    for n in SIZES:
        x_t, t = torch.zeros(n, *prior.latent_shape), torch.full((n,), 500)
        text, camera = prior.embed([""]).expand(n), torch.zeros(n, 16)
        with torch.no_grad():
            predicted = adapter.predict(x_t, t, text, camera)
        trained = adapter.predict(x_t, t, text, camera)
        trained.sum().backward()
        assert torch.equal(predicted, trained)
    assert not compiled


@pytest.mark.parametrize("call", [predict, encode])
def test_torch_never_goes_on_uncompiled(call, compiled, checkpoints, monkeypatch):
    monkeypatch.setattr(latent_diffusion, "COMPILATIONS", 1)
    with torch._dynamo.config.patch(cache_size_limit=1):
        prior = load(checkpoints[0])
        with pytest.raises(Exception, match="fullgraph=True"):
            [call(prior, n) for n in (2, 1)]


@pytest.mark.slow
def test_sd3_compiles_its_two_kinds_of_blocks(compiled, tmp_path):
    """The last block discards its text half. Each kind is compiled for a batch of 1 and for all others."""
    folder = make_sd3_checkpoint(tmp_path / "sd3", t5=False)
    compiled_prior, plain = (
        StableDiffusion3Prior(str(folder), resolution=64, compile=fast) for fast in (True, False)
    )
    for n in SIZES:
        x_t, t = torch.randn(n, *plain.latent_shape), torch.full((n,), 500)
        text = plain.embed(["a red cube"]).expand(n)
        assert torch.allclose(compiled_prior.eps(x_t, t, text), plain.eps(x_t, t, text), atol=1e-5)
    assert compiled == {"block": 2 * 2}


@pytest.mark.slow
def test_all_methods_share_a_process(compiled, checkpoints):
    """Each with one view, with four and with eight, in the released form and with Perp-Neg."""
    prior = load(checkpoints[0])
    variants = [(name, {}) for name in NAMES] + [(name, {"perp_neg": True}) for name in ("sdi", "ism")]
    for name, changes in variants:
        for views in (4, 1, 8):
            canvas = Image(None, 8 * SIDE, prior.latent_shape, seed=0, device="cpu", mode="rgb")
            method = configured(name, prior, **changes)
            # The small text encoder has no room for the real suffixes.
            method.prompt_suffixes = {key: value and ", x" for key, value in method.prompt_suffixes.items()}
            distill(
                prior, method, canvas, method.embed("a red cube"), CameraRange(),
                steps=1, views_per_step=views, resolution=8 * SIDE, background="black", rng=Rng(0),
            )  # fmt: skip
    assert compiled == {"block": BLOCKS, "encoder": 2}
