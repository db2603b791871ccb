"""RFDS and RFDS-Rev: values computed by hand in double precision, identities, and where a run ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from configured import CONF, FLOW, composed
from exact import SHAPE, cameras, exact_prior, exact_text
from linear_prior import at, drawing, normal
from omegaconf import OmegaConf

from trace_bench.cameras import make_cameras
from trace_bench.diffusion.flow import add_flow_noise, alphas_cumprod_of, flow_to_eps, sigma_of
from trace_bench.diffusion.inversion import ddim_invert
from trace_bench.methods.rfds import RFDS
from trace_bench.methods.rfds_rev import RFDSRev
from trace_bench.methods.sds import SDS
from trace_bench.priors.analytic import AnalyticPrior
from trace_bench.priors.base import Prior
from trace_bench.progress import Progress
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.targets import locate

Z, EPS, SCALE = 0.3, -0.4, 7.0


def exactly(value: float) -> Any:
    """Equal to the printed digits."""
    return pytest.approx(value, rel=1e-12, abs=1e-13)


@pytest.fixture
def prior() -> AnalyticPrior:
    """One number: N(1, 0.5^2) for the prompt, N(0, 1) for the empty text, the levels 0.5 and 0.875."""
    made = AnalyticPrior({"y": normal(1, 0.5), "": normal(0, 1)}, (1, 1, 1))
    made.sigmas = torch.tensor([0.5, 0.875], dtype=torch.float64)
    return made


def gradient(method: RFDS, monkeypatch: pytest.MonkeyPatch) -> float:
    """At z = 0.3 with the draw -0.4, from the lowest level of its range."""
    rng = drawing()
    monkeypatch.setattr(
        type(rng), "randn", lambda self, name, shape, device, dtype: torch.full(shape, EPS, dtype=dtype)
    )
    zero = torch.zeros(1)
    view = make_cameras(zero, zero, zero + 2.0, zero + 45.0, 1, 1)
    latents = torch.full((1, 1, 1, 1), Z, dtype=torch.float64)
    return method.step(latents, method.embed("y"), view, Progress(0, 10), rng).grad.item()


@pytest.mark.parametrize(
    ("cls", "sigma", "value"),
    [
        (RFDS, 0.5, -10.92),
        (RFDS, 0.875, -7.857868020304569),
        (RFDSRev, 0.5, -12.456),
        (RFDSRev, 0.875, -7.923726558272569),
    ],
)
def test_values(
    cls: type[RFDS], sigma: float, value: float, prior: AnalyticPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = cls(prior, guidance_scale=SCALE, min_sigma=sigma, max_sigma=sigma)
    assert gradient(method, monkeypatch) == exactly(value)


@pytest.mark.parametrize(("sigma", "noise"), [(0.5, -0.88), (0.875, -0.4974619289340102)])
def test_the_noise_that_the_flow_finds(sigma: float, noise: float, prior: AnalyticPrior) -> None:
    method = RFDSRev(prior, guidance_scale=SCALE)
    z, eps, level = (torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (Z, EPS, sigma))
    assert method.noise_at(z, eps, level, prior.embed(["y"])).item() == exactly(noise)


def test_the_analytic_velocity(prior: AnalyticPrior) -> None:
    for sigma, x, wanted in ((0.5, -0.05, (-1.66, 0.0)), (0.875, -0.3125, (-1.4796954314720814, -0.3))):
        state = torch.full((2, 1, 1, 1), x, dtype=torch.float64)
        level = torch.full((2,), sigma, dtype=torch.float64)
        found = prior.velocity(state, level, prior.embed(["y", ""])).flatten().tolist()
        assert found == [exactly(value) for value in wanted]


@pytest.mark.parametrize(("sigma", "mean"), [(0.5, -3.2), (0.875, -2.2741116751269037)])
def test_mean_over_the_noise(sigma: float, mean: float, prior: AnalyticPrior) -> None:
    """Of the unguided gradient at z = -1: sigma (z - 1) / ((1 - sigma)^2 / 4 + sigma^2). It is affine in the
    noise, so its mean is its value at 0."""
    z, level = torch.full((1, 1, 1, 1), -1.0, dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64)
    v = prior.velocity(add_flow_noise(z, 0.0 * z, level.view(1, 1, 1, 1)), level, prior.embed(["y"]))
    assert (v + z).item() == exactly(mean)


def test_an_inversion_in_diffusion_s_terms_is_one_of_the_flow(prior: AnalyticPrior) -> None:
    """ISM's chain through sigma 0.02, 0.2, 0.4 with the empty text, then to 0.48; SDI's gradient there."""
    levels = torch.tensor([0.02, 0.2, 0.4, 0.48], dtype=torch.float64)
    prior.alphas_cumprod = alphas_cumprod_of(levels)
    n = torch.hypot(1.0 - levels, levels)
    empty, prompt = prior.embed([""]), prior.embed(["y"])
    x = torch.full((1, 1, 1, 1), (0.98 * Z + 0.02 * EPS) / n[0].item(), dtype=torch.float64)

    def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return prior.eps(state, t, empty)

    x_s = ddim_invert(x, [0, 1, 2], prior.alphas_cumprod, predict)
    x_t = ddim_invert(x_s, [2, 3], prior.alphas_cumprod, predict)
    assert (n[2] * x_s).item() == exactly(0.19316941764216092)
    assert (n[3] * x_t).item() == exactly(0.18722574325317135)
    v_s = prior.velocity(n[2] * x_s, levels[2:3], empty)
    assert v_s.item() == exactly(-0.07429592986236955)
    t, sigma = torch.tensor([3]), levels[3]
    guided, _, _ = prior.eps_cfg(x_t, t, prompt, empty, SCALE)
    v = (guided - n[3] * x_t) / (1.0 - sigma)
    assert v.item() == exactly(-9.64617093791291)
    assert torch.allclose(flow_to_eps(n[3] * x_t, v, sigma), guided)
    kappa = (n[3] * x_t - (1.0 - sigma) * Z) / sigma
    assert kappa.item() == exactly(0.06505363177744031)
    assert (sigma * (v - (kappa - Z))).item() == exactly(-4.517387793451368)


@pytest.mark.parametrize("t", [100, 500, 900])
def test_rfds_is_sds_with_another_weight(t: int) -> None:
    """(1 - sigma) g is e_cfg - eps, and the targets are the same."""
    prior = exact_prior()
    prior.sigmas = sigma_of(prior.alphas_cumprod)
    sigma = prior.sigmas[t].item()
    sds = SDS(prior, guidance_scale=SCALE, **at(t))
    rfds = RFDS(prior, guidance_scale=SCALE, min_sigma=sigma, max_sigma=sigma)
    latents = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = (
        method.step(latents, exact_text(prior), cameras(4), Progress(0, 10), Rng(3).at(0))
        for method in (sds, rfds)
    )
    weight = (1.0 - prior.alphas_cumprod[t]) * (1.0 - sigma)
    assert torch.allclose(one.grad, weight * other.grad, rtol=1e-9)
    assert one.target is not None
    assert other.target is not None
    assert torch.allclose(one.target, other.target, rtol=1e-9)
    assert torch.allclose(sigma * other.grad, latents - other.target, rtol=1e-9)


def test_the_range_is_that_of_the_released_indices() -> None:
    """Index i of the scheduler's list, which falls, is t = 999 - i."""
    prior = exact_prior()
    for name, changes, wanted in (
        ("rfds", {}, (1000 - 1 - 980, 1000 - 1 - 300)),
        ("rfds", {"max_sigma": 147 / 148}, (1000 - 1 - 980, 1000 - 1 - 20)),
    ):
        method = RFDS(prior, guidance_scale=100.0, **changes)
        assert (method.low, method.high) == wanted, name


@pytest.mark.parametrize("ends", [(0.5, 0.4), (0.0, 0.5), (0.5, 1.0), (-0.1, 0.5)])
def test_a_range_that_is_none_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(TraceBenchError, match=r"method\.min_sigma=.* must be 0 < min_sigma <= max_sigma < 1"):
        RFDS(exact_prior(), guidance_scale=4.0, min_sigma=ends[0], max_sigma=ends[1])


@pytest.mark.parametrize("cls", [RFDS, RFDSRev])
def test_a_diffusion_prior_is_refused_by_name(cls: type[RFDS]) -> None:
    class Diffusion(AnalyticPrior):
        is_flow = False

    prior: Prior = Diffusion({"": normal(0, 1)}, (1, 1, 1))
    with pytest.raises(
        TraceBenchError, match=rf"{cls.__name__} needs a prior .* and Diffusion does not; use"
    ):
        cls(prior, guidance_scale=4.0)


def test_the_list_of_flow_methods() -> None:
    """`configured.FLOW` against the classes."""
    needing = [
        path.stem
        for path in sorted((CONF / "method").glob("*.yaml"))
        if (target := OmegaConf.load(path).get("_target_"))
        and getattr(locate("method", {"_target_": target}), "needs_flow", False)
    ]
    assert needing == list(FLOW)
    assert all(composed(name, "tiny")["negative_prompt"] == "" for name in FLOW)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [RFDS, RFDSRev])
def test_without_a_rival_the_mode_is_reached(cls: type[RFDS]) -> None:
    from test_convergence import end_of_run

    prior = exact_prior(same=True)
    end = end_of_run(cls(prior, guidance_scale=7.5), 800)
    mode = prior.gaussians[0].mean.numpy()
    assert np.abs(end - mode).max() < 0.2, (end, mode)
