"""Noise schedule, bridge and scheduled scalars against values computed in numpy."""

from __future__ import annotations

import math

import pytest
import torch

from trace_bench.diffusion.bridge import Bridge
from trace_bench.diffusion.schedules import (
    add_noise,
    alpha_sigma,
    clamp_gradient,
    dreamtime_timestep,
    dreamtime_weights,
    eps_to_v,
    eps_to_x0,
    scaled_linear_alphas_cumprod,
    v_to_eps,
    velocity,
)
from trace_bench.progress import Progress, scheduled

ABAR = scaled_linear_alphas_cumprod()
BRIDGE = Bridge.symmetric()


@pytest.mark.parametrize(
    ("t", "abar", "a", "s"),
    [
        (0, 0.99915000, 0.99957491, 0.02915476),
        (20, 0.98131436, 0.99061312, 0.13669542),
        (100, 0.89422348, 0.94563390, 0.32523303),
        (250, 0.67379263, 0.82084872, 0.57114567),
        (400, 0.42448302, 0.65152362, 0.75862835),
        (499, 0.27766965, 0.52694369, 0.84990020),
        (500, 0.27633268, 0.52567355, 0.85068638),
        (700, 0.08252087, 0.28726446, 0.95785131),
        (980, 0.00584378, 0.07644464, 0.99707383),
        (999, 0.00466010, 0.06826491, 0.99766723),
    ],
)
def test_sd_schedule(t: int, abar: float, a: float, s: float) -> None:
    got_a, got_s = alpha_sigma(ABAR, torch.tensor([t]))
    assert ABAR[t].item() == pytest.approx(abar, abs=5e-9)
    assert got_a.item() == pytest.approx(a, abs=5e-9)
    assert got_s.item() == pytest.approx(s, abs=5e-9)


@pytest.mark.parametrize(
    ("t", "fwd", "bwd", "w0", "w1", "std"),
    [
        (0, 0.01000000, 0.37553595, 0.99929142, 0.00070858, 0.00999646),
        (20, 0.04616201, 0.37282606, 0.98490096, 0.01509904, 0.04581218),
        (100, 0.10420307, 0.36094898, 0.92306864, 0.07693136, 0.10011462),
        (250, 0.17314609, 0.33344816, 0.78763084, 0.21236916, 0.15366468),
        (400, 0.23022530, 0.29696932, 0.62460506, 0.37539494, 0.18195156),
        (499, 0.26554402, 0.26589496, 0.50066036, 0.49933964, 0.18789193),
        (500, 0.26589496, 0.26554402, 0.49933964, 0.50066036, 0.18789193),
        (999, 0.37553595, 0.01000000, 0.00070858, 0.99929142, 0.00999646),
    ],
)
def test_bridge_schedule(t: int, fwd: float, bwd: float, w0: float, w1: float, std: float) -> None:
    got_w0, got_w1, got_std = BRIDGE.coefficients(torch.tensor([t]))
    assert BRIDGE.std_fwd[t].item() == pytest.approx(fwd, abs=5e-9)
    assert BRIDGE.std_bwd[t].item() == pytest.approx(bwd, abs=5e-9)
    assert got_w0.item() == pytest.approx(w0, abs=5e-9)
    assert got_w1.item() == pytest.approx(w1, abs=5e-9)
    assert got_std.item() == pytest.approx(std, abs=5e-9)


def test_bridge_is_a_mirror_with_a_constant_total() -> None:
    betas = torch.diff(BRIDGE.std_fwd**2, prepend=torch.zeros(1, dtype=torch.float64))
    assert betas[250].item() == pytest.approx(1.3999525e-4, abs=5e-12)
    total = BRIDGE.std_fwd**2 + BRIDGE.std_bwd**2 - betas
    assert torch.allclose(total, torch.full_like(total, 0.1410272508), atol=5e-11, rtol=0)
    assert torch.allclose(BRIDGE.std_fwd, BRIDGE.std_bwd.flip(0), atol=1e-15)


@pytest.mark.parametrize(
    ("t", "x_t", "b_t", "to_render", "v_released", "v_ok", "eps_of_released"),
    [
        (20, 0.992708, -0.157965, 43.167706, -0.292181, -0.296447, -0.153740),
        (100, 0.896195, -0.996184, 18.197109, -1.233497, -1.361685, -0.874965),
        (250, 0.652094, -2.009320, 9.541619, -2.021789, -2.901584, -1.287142),
        (400, 0.340186, -2.865950, 5.821193, -2.125309, -4.794952, -1.126614),
        (499, 0.095267, -3.407094, 4.124614, -1.876314, -6.619418, -0.907744),
    ],
)
def test_bridge_scalar_end_to_end(
    t: int, x_t: float, b_t: float, to_render: float, v_released: float, v_ok: float, eps_of_released: float
) -> None:
    """x0_pred = 1, x_rndr = -1, xi = 0.5."""
    x0, x1, xi = (torch.full((1, 1, 1, 1), v, dtype=torch.float64) for v in (1.0, -1.0, 0.5))
    index = torch.tensor([t])
    state = BRIDGE.sample(x0, x1, index, xi)
    noise = BRIDGE.noise(state, x0, index)
    a, s = alpha_sigma(ABAR, index)
    assert state.item() == pytest.approx(x_t, abs=5e-7)
    assert noise.item() == pytest.approx(b_t, abs=5e-7)
    assert ((state - x1) / BRIDGE.std_fwd[t]).item() == pytest.approx(to_render, abs=5e-7)
    released = velocity(state, noise, a, s)
    assert released.item() == pytest.approx(v_released, abs=5e-7)
    assert eps_to_v(state, noise, a, s).item() == pytest.approx(v_ok, abs=5e-7)
    assert v_to_eps(state, released, a, s).item() == pytest.approx(eps_of_released, abs=5e-7)
    assert v_to_eps(state, eps_to_v(state, noise, a, s), a, s).item() == pytest.approx(b_t, abs=5e-7)


def test_bridge_returns_its_ends_and_inverts_its_sample() -> None:
    x0, x1 = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    zero = torch.zeros_like(x0)
    assert torch.allclose(BRIDGE.sample(x0, x1, torch.tensor([0]), zero), x0, atol=0.005)
    assert torch.allclose(BRIDGE.sample(x0, x1, torch.tensor([999]), zero), x1, atol=0.005)
    t = torch.tensor([123])
    x_t = BRIDGE.sample(x0, x1, t, torch.randn_like(x0))
    back = x_t - BRIDGE.std_fwd[t] * BRIDGE.noise(x_t, x0, t)
    assert torch.allclose(back, x0, atol=1e-12)


def test_bridge_monte_carlo_moments() -> None:
    x0, x1 = torch.tensor(1.0), torch.tensor(-1.0)
    t = torch.tensor([300])
    xi = torch.randn(200_000, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = BRIDGE.sample(x0.double(), x1.double(), t, xi)
    w0, w1, std = BRIDGE.coefficients(t)
    assert samples.mean().item() == pytest.approx((w0 - w1).item(), abs=4 * std.item() / math.sqrt(200_000))
    assert samples.std().item() == pytest.approx(std.item(), rel=0.01)


def trace_timestep(k: int, n: int = 1700) -> int:
    weights = dreamtime_weights(20, 500, m1=980, m2=20, s1=1, s2=1)
    return dreamtime_timestep(weights, 20, (k - 1) / n)


def test_trace_timesteps() -> None:
    expected = {0: 499, 1: 499, 2: 499, 100: 472, 425: 380, 700: 303, 850: 260, 1276: 140, 1699: 21}
    assert {k: trace_timestep(k) for k in expected} == expected
    every = [trace_timestep(k) for k in range(1700)]
    assert every == sorted(every, reverse=True)
    assert len(set(every)) == 479
    assert sum(every) / 1700 == pytest.approx(260.42, abs=0.005)
    assert every == [min(max(500 - round(480 * (k - 1) / 1700), 20), 499) for k in range(1700)]


def test_dreamtime_general_rule() -> None:
    weights = dreamtime_weights(200, 800, m1=800, m2=500, s1=300, s2=100)
    got = [dreamtime_timestep(weights, 200, r) for r in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert got == [799, 694, 588, 482, 200]


def test_scheduled_ramp_switch_and_constant() -> None:
    ramp = (0.0, 1.5, 2.0, 1000 / 1200)
    got = [scheduled(ramp, Progress(k, 1200).fraction) for k in (0, 500, 1000, 1199)]
    assert got == pytest.approx([1.5, 1.75, 2.0, 2.0])
    switch = (0.2, 0.98, 0.5, 0.2)
    assert [scheduled(switch, Progress(k, 25000).fraction) for k in (0, 5000, 5001)] == [0.98, 0.98, 0.5]
    assert scheduled(0.02, 0.7) == 0.02


def test_clamp_gradient_follows_its_ramp() -> None:
    grad = torch.tensor([-3.0, 0.1, 3.0])
    assert clamp_gradient(grad, (0.0, 1.5, 2.0, 1.0), 0.5).tolist() == [-1.75, pytest.approx(0.1), 1.75]
    assert clamp_gradient(grad, None, 0.5) is grad


def test_parametrisations_invert_each_other() -> None:
    t = torch.tensor([20, 500, 980])
    a, s = alpha_sigma(ABAR, t)
    x0, eps = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    x_t = add_noise(x0, eps, a, s)
    assert torch.allclose(eps_to_x0(x_t, eps, a, s), x0, atol=1e-12)
    v = velocity(x0, eps, a, s)
    assert torch.allclose(v_to_eps(x_t, v, a, s), eps, atol=1e-12)
    assert torch.allclose(eps_to_v(x_t, eps, a, s), v, atol=1e-12)
