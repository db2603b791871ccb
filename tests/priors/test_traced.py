"""Networks as graphs on the CPU: the same bits, forward and backward, for all architectures."""

from __future__ import annotations

import pytest
import torch
from sd_checkpoint import make_checkpoint, make_sd3_checkpoint, make_sdxl_checkpoint

from trace_bench.priors import traced
from trace_bench.priors.adapter import LoraAdapter
from trace_bench.priors.base import Prior
from trace_bench.priors.sd3 import StableDiffusion3Prior
from trace_bench.priors.sdxl import StableDiffusionXLPrior
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.priors.traced import Traced

PRIORS = {
    "sd": (make_checkpoint, StableDiffusionPrior),
    "sdxl": (make_sdxl_checkpoint, StableDiffusionXLPrior),
    "sd3": (make_sd3_checkpoint, StableDiffusion3Prior),
}


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced, "CALLS", 1)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each trace gave a graph."""
    made: list[bool] = []

    def noted(*arguments, trace=traced._trace):
        graph = trace(*arguments)
        made.append(graph is not None)
        return graph

    monkeypatch.setattr(traced, "_trace", noted)
    return made


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "sdxl")) for name in PRIORS])
def prior(request, tmp_path) -> Prior:
    make, kind = PRIORS[request.param]
    return kind(str(make(tmp_path / request.param)), resolution=16)


def draws(prior: Prior, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *prior.latent_shape, generator=generator)
    return x, torch.randint(0, 1000, (n,), generator=generator)


def outputs(prior: Prior, seed: int) -> list[torch.Tensor]:
    """Results and gradients of every network that a step calls, with inputs of this seed."""
    text = prior.embed(["a red cube", "a blue ball"])
    x, t = draws(prior, 2, seed)
    camera = torch.randn(2, 16, generator=torch.Generator().manual_seed(seed))
    found = [prior.eps(x, t, text)]
    rgb = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    latents = prior.encode(rgb, x)
    found += [latents.detach(), prior.encode_backward(rgb, latents, x)]
    adapters = [prior.adapter(2, seed=k) for k in (seed, seed + 1)]
    for adapter in adapters:  # their last projections begin as zeros
        for p in adapter.parameters():
            p.data.add_(0.01)
    raw, loss = adapters[0].train(x, t, text, camera, lambda out: out.square().mean())
    found += [raw, loss, *(p.grad for p in adapters[0].parameters())]
    both, weights = LoraAdapter.predict_together(adapters, x, t, text, camera)
    return [*found, both.detach(), *torch.autograd.grad(both.square().sum(), weights)]


def test_graphs_have_the_bits_of_the_networks(prior, monkeypatch, graphs):
    expected = [outputs(prior, seed) for seed in range(3)]
    assert graphs == []
    monkeypatch.setattr(traced, "CALLS", 1)
    outputs(prior, 0)
    assert graphs == [True] * 4  # UNet, encoder, adapter alone, adapters together
    for seed, before in enumerate(expected):
        assert all(torch.equal(a, b) for a, b in zip(outputs(prior, seed), before, strict=True))
    assert len(graphs) == 4


def test_a_graph_comes_after_enough_calls_of_one_shape(graphs):
    double = Traced(torch.nn.Identity())
    for n in (2, 3):
        for _ in range(traced.CALLS - 1):
            double(lambda x: 2 * x, "double", torch.ones(n))
    assert graphs == []
    assert torch.equal(double(lambda x: 2 * x, "double", torch.ones(3)), torch.full((3,), 2.0))
    assert graphs == [True]
    assert torch.equal(double(lambda x: 2 * x, "double", torch.ones(3) / 2), torch.ones(3))


@pytest.mark.usefixtures("early")
def test_a_function_that_a_graph_cannot_repeat_stays_as_it_is(graphs):
    """One that changes with its calls, and one that torch cannot trace."""
    calls = iter(range(1, 100))
    counting, failing = Traced(torch.nn.Identity()), Traced(torch.nn.Identity())

    def fail(x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("not in a trace")
        return x + 1

    assert [counting(lambda x: x * next(calls), "count", torch.ones(1)).item() for _ in range(3)] == [1, 3, 4]
    assert [failing(fail, "fail", torch.ones(1)).item() for _ in range(3)] == [2, 2, 2]
    assert graphs == [False, False]


@pytest.mark.usefixtures("early")
def test_only_small_networks_on_the_cpu_become_graphs(monkeypatch, graphs):
    networks = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="meta")]
    assert [Traced(network).works for network in networks] == [True, False]
    monkeypatch.setattr(traced, "LARGEST", 5)
    large = Traced(networks[0])
    assert not large.works
    large(networks[0], "linear", torch.ones(2))
    large(networks[0], "linear", torch.ones(2))
    assert graphs == []


@pytest.mark.usefixtures("early")
def test_checkpointed_networks_stay_as_they_are(tmp_path, graphs):
    """A graph would keep what they compute again."""
    folder = make_checkpoint(tmp_path / "sd")
    outputs(StableDiffusionPrior(str(folder), resolution=16, gradient_checkpointing=True), 0)
    assert graphs == [True]  # the frozen UNet alone


@pytest.mark.usefixtures("early")
def test_what_cannot_be_compared_or_trained_on_makes_no_graph(graphs):
    """NaN equals nothing; constants of a graph made in inference mode refuse gradients."""
    double, weight = Traced(torch.nn.Identity()), torch.ones(1, requires_grad=True)
    double(lambda x: 2 * x, "double", torch.full((1,), torch.nan))
    with torch.inference_mode():
        double(lambda x: 2 * x, "double", torch.ones(1))
    assert graphs == []
    for _ in range(2):
        (grad,) = torch.autograd.grad(double(lambda x: 2 * x, "double", weight), weight)
        assert grad == 2
    assert graphs == [True]


@pytest.mark.usefixtures("early")
def test_a_network_has_a_limited_number_of_graphs(monkeypatch, graphs):
    monkeypatch.setattr(traced, "MOST", 2)
    double = Traced(torch.nn.Identity())
    for n in (1, 2, 3, 3):
        assert torch.equal(double(lambda x: 2 * x, "double", torch.ones(n)), torch.full((n,), 2.0))
    assert graphs == [True, True]


def test_adapters_train_in_double_precision(tmp_path):
    for name, (make, kind) in PRIORS.items():
        prior = kind(str(make(tmp_path / name)), resolution=16, dtype="float64")
        adapter, (x, t) = prior.adapter(2, seed=0), draws(prior, 2, 0)
        camera = torch.ones(2, 16)
        adapter.train(x, t, prior.embed(["a red cube"] * 2), camera, lambda out: out.square().mean())
        assert {p.grad.dtype for p in adapter.parameters()} == {torch.float64}
