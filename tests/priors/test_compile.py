"""torch.compile with the batch sizes of all methods in one process: how often it compiles.

Whole networks are compiled. A counting backend replaces inductor.
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

from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.priors import latent_diffusion
from trace_bench.priors.base import Adapter
from trace_bench.priors.sd3 import StableDiffusion3Prior
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.representations.image import Image
from trace_bench.seeding import Rng

SIZES = (2, 3, 1, 4, 8, 16)
#: Graphs of a network: for a batch of 1, and for all others.
UNET = ENCODER = 2
#: The same with a backward pass, for training.
ADAPTER = 2 * UNET
SIDE = 8  # of the latents


def load(checkpoint: tuple[Path, Path], compile: bool = True) -> StableDiffusionPrior:
    """The prior in the memory format that it has on a GPU."""
    base, adapter = checkpoint
    prior = StableDiffusionPrior(str(base), resolution=16, adapter_repo=str(adapter), compile=compile)
    for network in (prior._denoiser.unet, prior._vae, prior._adapter_network.unet):
        network.to(memory_format=torch.channels_last)
    return prior


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts compilations of the networks; starts from torch's own limit.

    Without oneDNN and NNPACK: torch chooses between them at 16 rows, and would compile once more. A GPU has
    no such choice.
    """
    counts: Counter[str] = Counter()

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        nodes = graph.graph.nodes
        attends = sum("scaled_dot_product_attention" in str(node.target) for node in nodes)
        network = "adapter" if any("lora" in node.name.lower() for node in nodes) else "unet"
        counts[network if attends > 1 else "encoder"] += 1
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    libraries = torch.backends.mkldnn, torch.backends.nnpack
    before = [library.set_flags(_enabled=False)[0] for library in libraries]
    with torch._dynamo.config.patch(cache_size_limit=8):
        yield counts
    for library, was_enabled in zip(libraries, before, strict=True):
        library.set_flags(_enabled=was_enabled)
    torch._dynamo.reset()


def predict(prior: StableDiffusionPrior, n: int) -> torch.Tensor:
    latents = torch.randn(n, *prior.latent_shape, generator=torch.Generator().manual_seed(n))
    return prior.eps(latents, torch.full((n,), 500), prior.embed(["a red cube"]).expand(n))


@pytest.mark.parametrize("part", ["unet", "adapter"])
def test_compiled_networks_get_one_memory_format(part, compiled, checkpoints, monkeypatch):
    """With any other, torch would compile once more; cuts and concatenations of latents differ in theirs."""
    prior = load(checkpoints)
    adapter = prior.adapter(4, seed=0)
    denoiser = prior._denoiser if part == "unet" else adapter.denoiser
    formats = set()

    def forward(sample: torch.Tensor, timestep: torch.Tensor, **others: Any) -> list[torch.Tensor]:
        text, camera = others["encoder_hidden_states"], others.get("class_labels")
        formats.add(tuple(x.stride() for x in (sample, timestep, text, camera) if x is not None))
        return [sample]

    monkeypatch.setattr(denoiser, "unet", forward)
    rows = torch.randn(3, *prior.latent_shape)
    for x in (rows, rows.to(memory_format=torch.channels_last), rows[:1].expand(3, -1, -1, -1)):
        for t in (torch.full((3,), 500), torch.tensor(500).expand(3)):
            for text in (prior.embed(["a red cube"]).expand(3), prior.embed(["a", "b", "c"])):
                if part == "unet":
                    prior.eps(x, t, text)
                else:
                    adapter.denoiser.predict(x, t, text, torch.zeros(16).expand(3, -1))
    assert len(formats) == 1


def encode(prior: StableDiffusionPrior, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The latents of n pictures and the gradient of their sum."""
    generator = torch.Generator().manual_seed(n)
    rgb = torch.rand(n, 3, 16, 16, generator=generator, requires_grad=True)
    latents = prior.encode(rgb, torch.zeros(n, *prior.latent_shape))
    return latents.detach(), torch.autograd.grad(latents.sum(), rgb)[0]


def train(prior: StableDiffusionPrior, adapter: Adapter, n: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The adapter's prediction without a graph, and the gradients of a loss of the one with it."""
    generator = torch.Generator().manual_seed(n)
    x_t, t = torch.randn(n, *prior.latent_shape, generator=generator), torch.full((n,), 500)
    text, camera = prior.embed([""]).expand(n), torch.randn(n, 16, generator=generator)
    with torch.no_grad():
        raw = adapter.predict(x_t, t, text, camera)
    adapter.train(x_t, t, text, camera, lambda raw: raw.square().mean())
    return raw, [parameter.grad for parameter in adapter.parameters()]


@pytest.mark.long
def test_no_batch_size_compiles_again_except_1(compiled, checkpoints):
    prior, plain = load(checkpoints), load(checkpoints, compile=False)
    for n in SIZES:
        assert torch.allclose(predict(prior, n), predict(plain, n), atol=1e-5)
        for found, expected in zip(encode(prior, n), encode(plain, n), strict=True):
            assert torch.allclose(found, expected, atol=1e-5)
    assert compiled == {"unet": UNET, "encoder": ENCODER}


@pytest.mark.long
def test_adapters_share_what_is_compiled(compiled, checkpoints):
    """Of any seed, in turn, after steps of their optimisers; gradients are those without compiling."""
    prior, plain = load(checkpoints), load(checkpoints, compile=False)
    adapters = [(prior.adapter(4, seed), plain.adapter(4, seed)) for seed in (0, 1)]
    for n in (2, 3, 1, 4):
        for own, other in adapters:
            (raw, grads), (expected, wanted) = train(prior, own, n), train(plain, other, n)
            assert torch.allclose(raw, expected, atol=1e-5)
            for grad, want in zip(grads, wanted, strict=True):
                assert torch.allclose(grad, want, atol=1e-5)
            for adapter in (own, other):
                with torch.no_grad():
                    adapter.lora_parameters()[1].add_(0.01)
    assert compiled == {"adapter": ADAPTER}


@pytest.mark.long
def test_a_second_prior_has_room(compiled, checkpoints):
    for _ in range(2):
        prior = load(checkpoints)
        for n in (2, 1):
            predict(prior, n)
    assert compiled == {"unet": UNET}  # the second runs the graphs of the first


@pytest.mark.slow
@pytest.mark.parametrize("call", [predict, encode])
def test_torch_never_goes_on_uncompiled(call, compiled, checkpoints, monkeypatch):
    monkeypatch.setattr(latent_diffusion, "COMPILATIONS", 1)
    with torch._dynamo.config.patch(cache_size_limit=1):
        prior = load(checkpoints)
        with pytest.raises(Exception, match="fullgraph=True"):
            [call(prior, n) for n in (2, 1)]


@pytest.mark.slow
def test_sd3_compiles_its_transformer(compiled, tmp_path):
    """Once for a batch of 1 and once for all others."""
    folder = make_sd3_checkpoint(tmp_path / "sd3", t5=False)
    compiled_prior, plain = (
        StableDiffusion3Prior(str(folder), resolution=64, compile=fast) for fast in (True, False)
    )
    for n in SIZES:
        x_t, t = torch.randn(n, *plain.latent_shape), torch.full((n,), 500)
        text = plain.embed(["a red cube"]).expand(n)
        assert torch.allclose(compiled_prior.eps(x_t, t, text), plain.eps(x_t, t, text), atol=1e-5)
    assert compiled == {"unet": UNET}


@pytest.mark.long
def test_all_methods_share_a_process(compiled, checkpoints):
    """Each with one view, with four and with eight, in the released form and with Perp-Neg."""
    prior = load(checkpoints)
    variants = [(name, {}) for name in NAMES] + [(name, {"perp_neg": True}) for name in ("sdi", "ism")]
    for name, changes in variants:
        for views in (4, 1, 8):
            canvas = Image(None, 16, prior.latent_shape, seed=0, device="cpu", mode="rgb")
            method = configured(name, prior, **changes)
            # The small text encoder has no room for the real suffixes.
            method.prompt_suffixes = {key: value and ", x" for key, value in method.prompt_suffixes.items()}
            distill(
                prior, method, canvas, method.embed("a red cube"), CameraRange(),
                steps=1, views_per_step=views, resolution=16, background="black", rng=Rng(0),
            )  # fmt: skip
    # diffusers computes 64 rows in another way: 8 views in RewardSDS, which has 4 candidates.
    assert compiled == {"unet": UNET + 1, "encoder": ENCODER, "adapter": ADAPTER}


@pytest.mark.parametrize("part", ["encode", "adapter"])
def test_gradient_checkpointing_changes_no_gradient(part, checkpoints):
    base, v = checkpoints
    found = []
    for checkpointing in (False, True):
        prior = StableDiffusionPrior(
            str(base), resolution=16, adapter_repo=str(v), gradient_checkpointing=checkpointing
        )
        if part == "encode":
            found.append([encode(prior, 2)[1]])
        else:
            found.append(train(prior, prior.adapter(4, seed=0), 2)[1])
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)


def test_gradient_checkpointing_knows_the_adapter_of_the_forward_pass(checkpoints):
    """The backward pass calls the network again, which may have served another adapter meanwhile."""
    base, v = checkpoints
    found = []
    for checkpointing in (False, True):
        prior = StableDiffusionPrior(
            str(base), resolution=16, adapter_repo=str(v), gradient_checkpointing=checkpointing
        )
        adapters = [prior.adapter(4, seed=k) for k in (0, 1)]
        for adapter in adapters:  # their last projections begin as zeros
            adapter.flat.add_(0.01)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, *prior.latent_shape, generator=generator)
        camera = torch.randn(2, 16, generator=generator)
        rows = x, torch.tensor([20, 700]), prior.embed(["a red cube", "a blue ball"]), camera
        raw = adapters[0].predict(*rows)
        with torch.no_grad():
            adapters[1].predict(*rows)
        found.append(torch.autograd.grad(raw.square().sum(), adapters[0].parameters()))
    assert all(torch.equal(plain, again) for plain, again in zip(*found, strict=True))
