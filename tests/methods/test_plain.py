"""Every method against the second, plain implementation of its step (plain.py), in double precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import plain
import pytest
import torch
from configured import FLOW, NAMES, configured
from sd_checkpoint import make_checkpoint, make_flow_checkpoint
from torch import Tensor

from trace_bench.cameras import Cameras, make_cameras
from trace_bench.methods.base import Geometry, Method
from trace_bench.priors.flow import FlowUNetPrior
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.priors.text import embed_prompt
from trace_bench.progress import Progress
from trace_bench.seeding import Rng

PROMPT = "a red cube"
TOLERANCE = 1e-7  # 1e-5 would suffice; double precision reaches more

#: Where the plain step has another name than the method, or takes more; all others are plain.<method>.
STEPS: dict[str, Callable[[plain.Nets, plain.Step, Any], plain.Answer]] = {
    "gaussiandreamer": lambda nets, step, method: plain.sds(nets, step),
    "dreamer_xl": lambda nets, step, method: plain.tsm(nets, step),
    "consistent3d": lambda nets, step, method: plain.cds(nets, step, method.noise),
    "cfd": lambda nets, step, method: plain.cfd(
        nets, step, method.noise_of(step.z, views(len(step.z)), ball(len(step.z)), step.rng)
    ),
    "sctd": lambda nets, step, method: plain.sctd(nets, step, method.noise),
    "trace": lambda nets, step, method: plain.trace(nets, step, "trace"),
    "trace_official": lambda nets, step, method: plain.trace(nets, step, "trace_official"),
    "trace_official_trained": lambda nets, step, method: plain.trace(nets, step, "trace_official_trained"),
}


def plain_step(name: str, nets: plain.Nets, step: plain.Step, method: Any) -> plain.Answer:
    """The answer of a method's plain step."""
    if name in STEPS:
        return STEPS[name](nets, step, method)
    return getattr(plain, name)(nets, step)


@pytest.fixture(scope="module", params=["eps", pytest.param("v", marks=pytest.mark.slow)])
def prior(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPrior:
    """An eps-model with a v-model as adapter base, like SD 2.1-base and SD 2.1, or the other way round."""
    folder = tmp_path_factory.mktemp("double")
    eps = make_checkpoint(folder / "eps", text_length=160)
    v = make_checkpoint(folder / "v", "v_prediction", seed=1, text_length=160)
    base, adapter = (eps, v) if request.param == "eps" else (v, eps)
    return StableDiffusionPrior(str(base), resolution=16, dtype="float64", adapter_repo=str(adapter))


def views(n: int) -> Cameras:
    """From the side, front, back and above."""
    elevation, azimuth = torch.tensor([10.0, 0.0, 40.0, 70.0]), torch.tensor([-75.0, 20.0, 170.0, 100.0])
    return make_cameras(elevation[:n], azimuth[:n], torch.full((n,), 2.0), torch.full((n,), 45.0), 8, 8)


def ball(n: int) -> Geometry:
    """Something round in the middle of each view."""
    alpha = torch.zeros(n, 8, 8, 1)
    alpha[:, 2:6, 2:6] = 1.0
    return Geometry(depth=1.6 * alpha, alpha=alpha)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> FlowUNetPrior:
    """A UNet that predicts the velocity of a flow."""
    folder = make_flow_checkpoint(tmp_path_factory.mktemp("flow") / "flow", text_length=160)
    return FlowUNetPrior(str(folder), resolution=16, dtype="float64")


def raw(unet: torch.nn.Module, kind: str = "eps") -> plain.Net:
    """A UNet as a function of one item. One of a flow is called with its own state and 1000 sigma."""

    def call(x: Tensor, t: int, tokens: Tensor, camera: Tensor | None) -> Tensor:
        labels = None if camera is None else camera[None]
        at = torch.tensor([t])
        if kind == "flow":
            x, sigma = plain.flow_state(x, t)
            at = torch.tensor([1000 * sigma], dtype=x.dtype)
        return unet(x[None], at, encoder_hidden_states=tokens[None], class_labels=labels).sample[0]

    return call


def velocity(unet: torch.nn.Module) -> Callable[[Tensor, float, Tensor], Tensor]:
    """The UNet of a flow at a noise level of its own."""

    def call(x: Tensor, sigma: float, tokens: Tensor) -> Tensor:
        at = torch.tensor([1000 * sigma], dtype=x.dtype)
        return unet(x[None], at, encoder_hidden_states=tokens[None]).sample[0]

    return call


def nets_of(prior: StableDiffusionPrior, method: Method, lora: torch.nn.Module | None) -> plain.Nets:
    unet = prior._denoiser.unet
    flows = isinstance(prior, FlowUNetPrior)
    kinds = ("v", "eps") if prior._denoiser.is_v else ("eps", "v")
    unet_kind, lora_kind = ("flow", "flow") if flows else kinds
    tokens = {}

    def embed(text: str) -> Tensor:
        if text not in tokens:
            tokens[text] = prior.embed([text]).tokens[0].double()
        return tokens[text]

    return plain.Nets(
        unet=raw(unet, unet_kind),
        unet_kind=unet_kind,
        lora=raw(lora or unet, lora_kind),
        lora_kind=lora_kind,
        tokens=embed,
        prompt=PROMPT,
        negative=method.negative_prompt,
        velocity=velocity(unet) if flows else None,
        reward=lambda z: float(method.reward(PROMPT, prior.decode(z[None]))[0]) if method.reward else 0.0,
    )


def randomised_lora(method: Method, seed: int = 0) -> torch.nn.Module | None:
    """Randomise the adapter's parameters; returns a copy of its network, None without adapter."""
    adapter = getattr(method, "adapter", None)
    if adapter is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return copy.deepcopy(adapter.denoiser.unet)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_step_agrees_with_the_plain_one(prior: StableDiffusionPrior, name: str, n: int) -> None:
    agree(prior, name, n)


#: With what only some have: an adapter, its two targets, an inversion. The others on a flow are slow tests.
QUICK = ("asd", "ism", "trace", *FLOW)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in (*NAMES, *FLOW)]
)
def test_step_on_a_flow_agrees_with_the_plain_one(flow: FlowUNetPrior, name: str) -> None:
    agree(flow, name, 2)


def agree(prior: StableDiffusionPrior, name: str, n: int) -> None:
    """Compare a step of `n` views, and the training of the adapter."""
    k, steps = (340 if n == 1 else 1360), 1700  # within and past the warm-ups and switches
    method = configured(name, prior)
    lora = randomised_lora(method)
    view, rng = views(n), Rng(7).at(k)
    latents = torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    text = method.embed(PROMPT)
    before = [p.detach().clone() for p in method.adapter.parameters()] if lora else []

    got = method.take_step(latents, text, view, Progress(k, steps), rng, ball(n))

    step = plain.Step(
        z=latents,
        k=k,
        n=steps,
        elevation=view.elevation_deg.tolist(),
        azimuth=view.azimuth_deg.tolist(),
        cameras=view.c2w.reshape(n, 16).double(),
        rng=rng,
    )
    with torch.set_grad_enabled(lora is not None):
        expected = plain_step(name, nets_of(prior, method, lora), step, method)
    assert got.grad.dtype == torch.float64
    size = expected.grad.abs().mean().item()
    assert size > 1e-5  # BSD's is small where the text changes little
    assert torch.allclose(got.grad, expected.grad, rtol=TOLERANCE, atol=TOLERANCE * size)
    if expected.lora_loss is None:
        assert "lora_loss" not in got.log
        return
    assert lora is not None
    check_training(method, lora, before, got.log["lora_loss"], expected.lora_loss)


def check_training(
    method: Any, lora: torch.nn.Module, before: list[Tensor], loss: Tensor, expected: Tensor
) -> None:
    """The loss, its gradient in every trained parameter, and Adam's first step, lr times the sign.

    The released TraCe's optimiser has the LoRA layers only; its camera MLP stays as it was.
    """
    held = {id(p) for group in method.optimizer.param_groups for p in group["params"]}
    names = [name for name, p in method.adapter.denoiser.unet.named_parameters() if id(p) not in held]
    left_out = [name for name in names if "class_embedding" in name]
    assert bool(left_out) == (getattr(method, "lora_target", None) == "released_velocity")
    assert torch.allclose(loss, expected, rtol=TOLERANCE)
    trained = [p for p in lora.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(expected, trained)
    decay = method.optimizer.defaults.get("weight_decay", 0.0)
    lr, eps = method.optimizer.defaults["lr"], method.optimizer.defaults["eps"]
    for old, new, gradient in zip(before, method.adapter.parameters(), gradients, strict=True):
        if id(new) not in held:
            assert torch.equal(new, old)
            continue
        assert new.grad is not None
        assert torch.allclose(new.grad, gradient, rtol=TOLERANCE, atol=1e-9)
        moved = old * (1.0 - lr * decay) - lr * new.grad / (new.grad.abs() + eps)
        assert torch.allclose(new.detach(), moved, rtol=1e-9, atol=1e-12)


def test_every_configured_method_has_a_plain_step() -> None:
    """A method without one needs a function of its name in plain.py."""
    assert [name for name in (*NAMES, *FLOW) if name not in STEPS and not hasattr(plain, name)] == []
    assert set(STEPS) <= set(NAMES)


def test_the_plain_step_would_notice(prior: StableDiffusionPrior) -> None:
    """A guidance scale off by one (the two conventions differ by one) is far outside the tolerance."""
    method = configured("sds", prior, grad_clamp=None, guidance_scale=100.0)
    text, view, rng = embed_prompt(prior, PROMPT, method.negative_prompt), views(1), Rng(7).at(0)
    latents = torch.zeros(1, 4, 8, 8, dtype=torch.float64)
    right = configured("sds", prior, grad_clamp=None).step(latents, text, view, Progress(0, 10), rng).grad
    wrong = method.step(latents, text, view, Progress(0, 10), rng).grad
    assert (wrong - right).abs().max() > 100 * TOLERANCE
