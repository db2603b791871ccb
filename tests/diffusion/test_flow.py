"""Flow matching as diffusion: the table of noise levels, the change of variables, hops."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from trace_bench.diffusion.flow import (
    add_flow_noise,
    alphas_cumprod_of,
    flow_to_eps,
    flow_to_x0,
    shifted_sigmas,
    sigma_of,
    to_flow,
)
from trace_bench.diffusion.inversion import ddim_hop
from trace_bench.diffusion.schedules import scaled_linear_alphas_cumprod

#: t: sigma, abar, a, s, n of Stable Diffusion 3's schedule, computed independently.
LEVELS = {
    0: (0.00299401, 0.99999098, 0.99999549, 0.00300299, 0.99701048),
    20: (0.06046065, 0.99587598, 0.99793586, 0.06421855, 0.94148270),
    100: (0.25207987, 0.89799113, 0.94762394, 0.31938827, 0.78925838),
    250: (0.50133156, 0.49733690, 0.70522117, 0.70898737, 0.70710929),
    500: (0.75074925, 0.09928230, 0.31509094, 0.94906148, 0.79104385),
    700: (0.87552040, 0.01981401, 0.14076224, 0.99004343, 0.88432525),
    980: (0.99358542, 0.00004168, 0.00645586, 0.99997916, 0.99360612),
    998: (0.99966644, 0.00000011, 0.00033367, 0.99999994, 0.99966650),
}


@pytest.mark.parametrize("t", LEVELS)
def test_levels(t: int) -> None:
    sigma = shifted_sigmas(3.0)[t]
    abar = alphas_cumprod_of(sigma)
    n = to_flow(torch.ones(()), sigma)
    found = [float(value) for value in (sigma, abar, abar.sqrt(), (1.0 - abar).sqrt(), n)]
    assert found == pytest.approx(LEVELS[t], abs=6e-9)
    assert sigma_of(abar).item() == pytest.approx(sigma.item(), abs=1e-9)


def test_the_schedule_is_that_of_diffusers() -> None:
    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    assert torch.allclose(shifted_sigmas(3.0, dtype=torch.float32), theirs.sigmas.flip(0), atol=1e-7)
    assert torch.allclose(theirs.timesteps, 1000 * theirs.sigmas)


def test_stable_diffusion_s_steps_with_the_same_signal_to_noise_ratio() -> None:
    sigmas = sigma_of(scaled_linear_alphas_cumprod())
    nearest = [int((sigmas - level).abs().argmin()) for level in (0.5, 0.75, 0.875)]
    assert nearest == [354, 673, 866]
    # The table in docs/methods.md, "Flow priors".
    steps = [20, 100, 250, 354, 500, 673, 866, 980]
    assert [round(level, 3) for level in sigmas[steps].tolist()] == [
        0.121, 0.256, 0.41, 0.5, 0.618, 0.75, 0.875, 0.929,
    ]  # fmt: skip
    own = shifted_sigmas(3.0)
    assert [int((own - sigmas[t]).abs().argmin()) for t in steps] == [43, 102, 187, 249, 349, 499, 699, 812]
    assert (sigmas.diff() > 0).all()
    assert (sigmas[0].item(), sigmas[-1].item()) == pytest.approx((0.0283, 0.9359), abs=1e-3)


def test_a_ddim_hop_is_an_euler_step() -> None:
    """For v = 0.7 x - 0.3 sigma + 0.1 from x = 0.37, sigma 0.3 to 0.55."""
    x, sigma, then = (torch.tensor(value, dtype=torch.float64) for value in (0.37, 0.3, 0.55))
    v = 0.7 * x - 0.3 * sigma + 0.1
    abars = [alphas_cumprod_of(each) for each in (sigma, then)]
    at, to = ((abar.sqrt(), (1 - abar).sqrt()) for abar in abars)
    n_at, n_to = torch.hypot(1 - sigma, sigma), torch.hypot(1 - then, then)
    hop = n_to * ddim_hop(x / n_at, flow_to_eps(x, v, sigma), at, to)
    assert hop.item() == pytest.approx(0.43725, abs=1e-12)
    assert (x + (then - sigma) * v).item() == pytest.approx(0.43725, abs=1e-12)


def test_the_three_predictions_belong_together() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    sigma = torch.tensor(0.3, dtype=torch.float64)
    x = add_flow_noise(x0, eps, sigma)
    assert torch.allclose(flow_to_eps(x, eps - x0, sigma), eps)
    assert torch.allclose(flow_to_x0(x, eps - x0, sigma), x0)
    abar = alphas_cumprod_of(sigma)
    assert torch.allclose(to_flow(abar.sqrt() * x0 + (1 - abar).sqrt() * eps, sigma), x)
