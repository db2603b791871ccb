"""Identities between methods."""

from __future__ import annotations

import pytest
import torch
from exact import SHAPE, D, cameras, exact_prior, exact_text
from torch import Tensor

from trace_bench.diffusion.bridge import Bridge
from trace_bench.diffusion.schedules import add_noise, alpha_sigma
from trace_bench.methods.sds import SDS
from trace_bench.methods.trace import TraCe
from trace_bench.methods.vsd import VSD
from trace_bench.priors.base import classifier_free_guidance
from trace_bench.progress import Progress
from trace_bench.seeding import Rng

PROGRESS = Progress(10, 100)


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_guidance_at_zero_one_and_s(latents: Tensor) -> None:
    prior = exact_prior()
    text = exact_text(prior)
    t = torch.full((4,), 300)
    cond, uncond = text.plain.expand(4), text.empty.expand(4)
    zero, eps_cond, eps_uncond = prior.eps_cfg(latents, t, cond, uncond, 0.0)
    assert torch.equal(zero, eps_uncond)
    assert torch.allclose(prior.eps_cfg(latents, t, cond, uncond, 1.0)[0], eps_cond, atol=1e-14)
    guided = prior.eps_cfg(latents, t, cond, uncond, 7.5)[0]
    assert torch.allclose(guided, -6.5 * eps_uncond + 7.5 * eps_cond, atol=1e-12)
    threestudio = eps_cond + 100.0 * (eps_cond - eps_uncond)
    assert torch.allclose(classifier_free_guidance(eps_cond, eps_uncond, 101.0), threestudio, atol=1e-11)


def test_sds_minus_its_classifier_part_is_the_noise_residual(latents: Tensor) -> None:
    prior = exact_prior()
    text, rng, view = exact_text(prior), Rng(0).at(3), cameras(4)
    guided = SDS(prior, guidance_scale=8.0).step(latents, text, view, PROGRESS, rng).grad
    plain = SDS(prior, guidance_scale=1.0).step(latents, text, view, PROGRESS, rng).grad
    t = SDS(prior, guidance_scale=1.0).draw_t(4, PROGRESS, rng, "cpu")
    a, s = alpha_sigma(prior.alphas_cumprod, t)
    x_t = add_noise(latents, rng.randn("eps", latents.shape, dtype=torch.float64), a, s)
    _, cond, uncond = prior.eps_cfg(x_t, t, text.plain.expand(4), text.empty.expand(4), 1.0)
    classifier = s**2 * (8.0 - 1.0) * (cond - uncond)
    assert torch.allclose(guided - classifier, plain, atol=1e-12)


def test_vsd_without_guidance_and_with_the_prior_as_adapter_vanishes(latents: Tensor) -> None:
    """If e_phi is the prior's unconditional score, the gradient is zero for s = 0 and s times the classifier
    direction for s > 0."""
    prior = exact_prior()
    text, rng, view = exact_text(prior), Rng(0).at(3), cameras(4)
    method = VSD(prior, guidance_scale=0.0, lora_lr=0.0)
    method.adapter.predict = lambda x, t, text_, camera: prior.eps(x, t, text.empty.expand(len(x)))  # type: ignore[method-assign,misc]
    method.train_adapter = lambda *args: torch.zeros(())  # type: ignore[method-assign]
    assert method.step(latents, text, view, PROGRESS, rng).grad.abs().max() < 1e-14
    method.guidance_scale = 5.0
    grad = method.step(latents, text, view, PROGRESS, rng).grad
    method.guidance_scale = 1.0
    assert torch.allclose(grad, 5.0 * method.step(latents, text, view, PROGRESS, rng).grad, atol=1e-12)


def test_trace_with_a_perfect_adapter_is_the_direct_transport(latents: Tensor) -> None:
    """With e_phi = E[b_t | x_t], here b_t itself, Algorithm 1 leaves
    (x_rndr - x0_pred) / sigma_t and the released sign leaves nothing."""
    prior = exact_prior()
    text, rng, view = exact_text(prior), Rng(0).at(3), cameras(4)
    for grad_form in ("alg1", "released"):
        method = TraCe(prior, guidance_scale=7.5, train_lora=False, grad_form=grad_form)  # type: ignore[arg-type]
        x0 = method.predict_x0(latents, text.plain.expand(4), text.negative.expand(4), PROGRESS, rng)
        bridge = Bridge.symmetric()

        def perfect(
            x: Tensor, t: Tensor, text_: object, camera: object, x0: Tensor = x0, b: Bridge = bridge
        ) -> Tensor:
            return b.noise(x, x0, t)

        method.adapter.predict = perfect  # type: ignore[method-assign,assignment]
        grad = method.step(latents, text, view, PROGRESS, rng).grad
        t = method.bridge_timesteps(4, PROGRESS, rng)
        expected = (latents - x0) / bridge.std_fwd[t].view(-1, 1, 1, 1) if grad_form == "alg1" else 0 * x0
        assert torch.allclose(grad, expected, atol=1e-10)


def test_trace_pulls_the_render_towards_its_target() -> None:
    """Sign test: with e_phi = 0, both forms move a render at -1 up towards a target at 1."""
    prior = exact_prior()
    text, view = exact_text(prior), cameras(256)
    latents = torch.full((256, *SHAPE), -1.0, dtype=torch.float64)
    for grad_form in ("alg1", "released"):
        method = TraCe(prior, guidance_scale=7.5, train_lora=False, grad_form=grad_form)  # type: ignore[arg-type]
        method.predict_x0 = lambda z, *args: torch.ones_like(z)  # type: ignore[method-assign]
        grad = method.step(latents, text, view, PROGRESS, Rng(0).at(0)).grad
        assert -grad.mean() > 1.0


def test_lora_targets_agree_where_they_should(latents: Tensor) -> None:
    """The epsilon loss equals a_t^2 times the consistent velocity loss; the released target differs."""
    prior = exact_prior()
    t = torch.full((4,), 250)
    a, _ = alpha_sigma(prior.alphas_cumprod, t)
    x_t, b_t, eps_phi = torch.randn(3, 4, *SHAPE, dtype=torch.float64)
    losses = {
        target: TraCe(prior, guidance_scale=1.0, lora_target=target).lora_loss(eps_phi, x_t, b_t, t).item()  # type: ignore[arg-type]
        for target in ("bridge_noise", "velocity", "released_velocity")
    }
    assert losses["bridge_noise"] == pytest.approx(a[0].item() ** 2 * losses["velocity"], rel=1e-12)
    assert abs(losses["released_velocity"] - losses["velocity"]) > 1e-3


def test_items_of_a_batch_are_independent(latents: Tensor) -> None:
    prior = exact_prior()
    text, rng = exact_text(prior), Rng(0).at(3)
    for cls in (SDS, VSD, TraCe):
        whole = cls(prior, guidance_scale=7.5).step(latents, text, cameras(4), PROGRESS, rng).grad
        part = cls(prior, guidance_scale=7.5).step(latents[:2], text, cameras(2), PROGRESS, rng).grad
        assert torch.allclose(whole[:2], part, atol=1e-12), cls.__name__
    assert latents.shape[1:].numel() == D
