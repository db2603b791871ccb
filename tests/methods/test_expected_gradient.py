"""Monte-Carlo means of the methods' gradients against closed forms on the exact Gaussian prior.

Predictions are affine in the noise, so the mean over the noise is the prediction at the mean state.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact import SHAPE, D, cameras, exact_eps_cfg, exact_prior, exact_text, sd_abar

from trace_bench.diffusion.bridge import Bridge
from trace_bench.methods.base import Method
from trace_bench.methods.sds import SDS
from trace_bench.methods.trace import TraCe
from trace_bench.methods.vsd import VSD
from trace_bench.progress import Progress
from trace_bench.seeding import Rng

SCALE = 3.0
BATCH, DRAWS = 2048, 8
PROGRESS = Progress(600, 1700)


def monte_carlo(method: Method, z: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean of g over BATCH x DRAWS samples and its standard error, each [D]."""
    text = exact_text(method.prior)  # type: ignore[arg-type]
    latents = z.view(1, *SHAPE).expand(BATCH, *SHAPE)
    grads = [
        method.step(latents, text, cameras(BATCH), PROGRESS, Rng(draw).at(0)).grad.reshape(BATCH, D)
        for draw in range(DRAWS)
    ]
    every = torch.cat(grads).numpy()
    return every.mean(0), every.std(0) / np.sqrt(len(every))


def assert_equal_in_mean(method: Method, z: torch.Tensor, expected: np.ndarray) -> None:
    mean, error = monte_carlo(method, z)
    assert np.all(np.abs(mean - expected) < 4.5 * error), (mean, expected, error)
    assert np.linalg.norm(mean - expected) < 0.1 * np.linalg.norm(expected)


def fixed_adapter(method: VSD | TraCe) -> tuple[float, np.ndarray]:
    """Give the adapter eps_phi = 0.3 x + shift and return both."""
    shift = torch.linspace(-1.0, 1.0, D, dtype=torch.float64)
    method.adapter.scale.data[0] = 0.3  # type: ignore[attr-defined]
    method.adapter.shift.data[0] = shift.view(SHAPE)  # type: ignore[attr-defined]
    return 0.3, shift.numpy()


@pytest.fixture
def z() -> torch.Tensor:
    return torch.randn(D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_sds(z: torch.Tensor) -> None:
    prior = exact_prior()
    method = SDS(prior, guidance_scale=SCALE)
    steps = np.arange(20, 981)
    expected = np.mean(
        [(1 - sd_abar(t)) * exact_eps_cfg(prior, np.sqrt(sd_abar(t)) * z.numpy(), t, SCALE) for t in steps],
        axis=0,
    )
    assert_equal_in_mean(method, z, expected)


def test_vsd_with_a_known_adapter(z: torch.Tensor) -> None:
    prior = exact_prior()
    method = VSD(prior, guidance_scale=SCALE, lora_lr=0.0, lora_weight_decay=0.0)
    gain, shift = fixed_adapter(method)
    terms = []
    for t in np.arange(20, 981):
        x = np.sqrt(sd_abar(t)) * z.numpy()
        terms.append((1 - sd_abar(t)) * (exact_eps_cfg(prior, x, t, SCALE) - (gain * x + shift)))
    assert_equal_in_mean(method, z, np.mean(terms, axis=0))


@pytest.mark.parametrize("grad_form", ["alg1", "released"])
@pytest.mark.parametrize("weighting", ["one", "sigma", "sigma2"])
def test_trace_with_a_known_adapter(z: torch.Tensor, grad_form: str, weighting: str) -> None:
    prior = exact_prior()
    method = TraCe(prior, guidance_scale=SCALE, lora_lr=0.0, grad_form=grad_form, weighting=weighting)  # type: ignore[arg-type]
    gain, shift = fixed_adapter(method)
    x0_preds = []
    for t in np.arange(20, 700):
        a, s = np.sqrt(sd_abar(t)), np.sqrt(1 - sd_abar(t))
        x0_preds.append(z.numpy() - (s / a) * exact_eps_cfg(prior, a * z.numpy(), t, SCALE))
    x0 = np.mean(x0_preds, axis=0)

    t = int(500 - round(480 * (PROGRESS.k - 1) / PROGRESS.n))
    bridge = Bridge.symmetric()
    fwd2, bwd2 = float(bridge.std_fwd[t] ** 2), float(bridge.std_bwd[t] ** 2)
    x_t = (bwd2 * x0 + fwd2 * z.numpy()) / (fwd2 + bwd2)
    eps_phi = gain * x_t + shift
    sigma = np.sqrt(fwd2)
    expected = eps_phi - (x_t - z.numpy()) / sigma if grad_form == "alg1" else (x_t - x0) / sigma - eps_phi
    weight = {"one": 1.0, "sigma": sigma, "sigma2": sigma**2}[weighting]
    assert_equal_in_mean(method, z, weight * expected)


def test_trace_late_targets_come_from_lower_noise(z: torch.Tensor) -> None:
    """After the switch t' stays below 500: x0_pred's mean is that of the late range."""
    prior = exact_prior()
    method = TraCe(prior, guidance_scale=SCALE, lora_lr=0.0)
    late = Progress(1000, 1700)
    text, n = exact_text(prior), BATCH
    latents = z.view(1, *SHAPE).expand(n, *SHAPE)
    cond, uncond = text.plain.expand(n), text.negative.expand(n)
    draws = [method.predict_x0(latents, cond, uncond, late, Rng(i).at(0)).reshape(n, D) for i in range(DRAWS)]
    every = torch.cat(draws).numpy()
    terms = []
    for t in np.arange(20, 500):
        a, s = np.sqrt(sd_abar(t)), np.sqrt(1 - sd_abar(t))
        terms.append(z.numpy() - (s / a) * exact_eps_cfg(prior, a * z.numpy(), t, SCALE))
    error = every.std(0) / np.sqrt(len(every))
    assert np.all(np.abs(every.mean(0) - np.mean(terms, axis=0)) < 4.5 * error)
