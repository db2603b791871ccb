"""Identities of CSD, SDI, ISM, TSM and CDS; DDIM inversion is exact if the data are one point."""

from __future__ import annotations

import pytest
import torch
from exact import SHAPE, D, cameras, exact_prior, exact_text
from torch import Tensor

from trace_bench.diffusion.inversion import ddim_hop, level, timestep
from trace_bench.diffusion.schedules import add_noise, alpha_sigma, eps_to_x0
from trace_bench.methods.base import Method
from trace_bench.methods.consistent3d import CDS
from trace_bench.methods.csd import CSD
from trace_bench.methods.dreamer_xl import TSM
from trace_bench.methods.ism import ISM
from trace_bench.methods.sdi import SDI
from trace_bench.methods.sds import SDS
from trace_bench.priors.analytic import AnalyticPrior, Gaussian
from trace_bench.priors.text import PromptText, embed_prompt
from trace_bench.progress import Progress, scheduled
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError

PROGRESS = Progress(10, 100)
VIEW = cameras(4)
POINT, OTHER = torch.linspace(-1.0, 1.0, D), torch.linspace(0.5, -0.5, D)


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def point_prior(prompt: Tensor = POINT, empty: Tensor = POINT) -> AnalyticPrior:
    """Data that are one point for the prompt and one for the empty text."""
    none = torch.zeros(D, D, dtype=torch.float64)
    points = {"y": Gaussian(prompt.double(), none), "": Gaussian(empty.double(), none)}
    return AnalyticPrior(points, SHAPE)


def grad_of(method: Method, latents: Tensor, step: int = 3, progress: Progress = PROGRESS) -> Tensor:
    text = exact_text(method.prior)  # type: ignore[arg-type]
    return method.step(latents, text, cameras(len(latents)), progress, Rng(0).at(step)).grad


def test_two_branch_csd_is_the_classifier_part_of_sds(latents: Tensor) -> None:
    prior = exact_prior()
    csd = CSD(prior, two_branch=True, max_step_percent=0.98)
    difference = grad_of(SDS(prior, guidance_scale=8.0), latents) - grad_of(
        SDS(prior, guidance_scale=7.0), latents
    )
    assert torch.allclose(grad_of(csd, latents), difference, atol=1e-12)


def test_csd_branches_weigh_negative_and_empty_prompt(latents: Tensor) -> None:
    gaussians = dict(zip(("y", "n", ""), exact_prior().gaussians * 2, strict=False))
    gaussians["n"] = Gaussian(torch.ones(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64))
    prior = AnalyticPrior(gaussians, SHAPE)
    text = embed_prompt(prior, "y", "n")
    view, rng = VIEW, Rng(0).at(3)

    def grad(coefficient: float) -> Tensor:
        method = CSD(prior, negative_coefficient=coefficient)
        before = prior.counter.unet_fwd
        answer = method.step(latents, text, view, PROGRESS, rng).grad
        assert prior.counter.unet_fwd - before == (2 if coefficient in (0.0, -1.0) else 3) * 4
        return answer

    only_negative, only_empty, between = grad(-1.0), grad(0.0), grad(-0.3)
    assert (only_negative - only_empty).abs().max() > 1e-2
    assert torch.allclose(between, 0.3 * only_negative + 0.7 * only_empty, atol=1e-12)


def test_csd_weighs_by_the_variance_or_by_one(latents: Tensor) -> None:
    prior = exact_prior()
    at_500 = {"min_step_percent": 0.5, "max_step_percent": 0.5}
    sds, one = (grad_of(CSD(prior, weighting=name, **at_500), latents) for name in ("sds", "one"))
    torch.testing.assert_close(sds, (1.0 - prior.alphas_cumprod[500]) * one)


def test_csd_normalises_where_asked_and_has_no_guidance_scale(latents: Tensor) -> None:
    prior = exact_prior()
    plain, unit = grad_of(CSD(prior), latents), grad_of(CSD(prior, grad_normalize=True), latents)
    assert unit.norm().item() == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(unit * plain.norm(), plain, atol=1e-6)
    with pytest.raises(TraceBenchError, match="no guidance scale"):
        CSD(prior, guidance_scale=7.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("remap", [False, True])
def test_sdi_finds_a_point_from_anywhere(latents: Tensor, remap: bool) -> None:
    """If the data are one picture, the one-step estimate is that picture for any noise."""
    grad = grad_of(SDI(point_prior(), guidance_scale=7.5, remap=remap), latents)
    assert torch.allclose(grad, latents - POINT.view(1, *SHAPE), atol=1e-9)


def test_sdi_without_inversion_noise_is_deterministic_and_finds_the_noise_of_the_point(
    latents: Tensor,
) -> None:
    prior = point_prior()
    method = SDI(prior, guidance_scale=7.5, inversion_eta=0.0)
    text = exact_text(prior)
    cond, uncond = text.plain.expand(4), text.negative.expand(4)
    grid = [-99, 1, 101, 201, 250]
    x_inv, kappa = method.invert(latents, grid, cond, uncond, Rng(0).at(0))
    again, _ = method.invert(latents, grid, cond, uncond, Rng(1).at(5))
    assert torch.equal(x_inv, again)
    point = POINT.view(1, *SHAPE).double()
    (a_0, s_0), (a, s) = level(prior.alphas_cumprod, 0), level(prior.alphas_cumprod, 250)
    noise = (latents - a_0 * point) / s_0  # what the latents hold, read as level 0
    assert torch.allclose(x_inv, a * point + s * noise, atol=1e-9)
    assert torch.allclose(kappa, noise + (a / s) * (point - latents), atol=1e-9)
    noisy = SDI(prior, guidance_scale=7.5, inversion_eta=0.3)
    assert (noisy.invert(latents, grid, cond, uncond, Rng(0).at(0))[0] - x_inv).abs().max() > 1e-3


def test_sdi_is_sds_with_the_inverted_noise(latents: Tensor) -> None:
    """g = (s_t / a_t) (e_cfg(a_t z + s_t kappa, t) - kappa) with `remap`."""
    prior = exact_prior()
    method, rng = SDI(prior, guidance_scale=7.5, remap=True), Rng(0).at(3)
    text = exact_text(prior)
    cond, uncond = text.plain.expand(4), text.negative.expand(4)
    t = method.timestep(PROGRESS)
    _, kappa = method.invert(latents, method.grid(t, rng), cond, uncond, rng)
    a, s = level(prior.alphas_cumprod, t)
    x_t = add_noise(latents, kappa, a, s)
    eps, _, _ = prior.eps_cfg(x_t, timestep(t, x_t), cond, uncond, 7.5)
    assert torch.allclose(grad_of(method, latents), (s / a) * (eps - kappa), atol=1e-10)


def test_sdi_reductions_and_first_hop(latents: Tensor) -> None:
    prior = exact_prior()
    summed = grad_of(SDI(prior, guidance_scale=7.5), latents)
    mean = grad_of(SDI(prior, guidance_scale=7.5, reduction="mean"), latents)
    assert torch.allclose(mean * 4 * D, summed, atol=1e-12)
    short = SDI(prior, guidance_scale=7.5, skip_first_hop=True, inversion_eta=0.0)
    whole = SDI(prior, guidance_scale=7.5, inversion_eta=0.0)
    rng = Rng(0).at(3)
    assert whole.cost(PROGRESS, 1, rng).unet_fwd - short.cost(PROGRESS, 1, rng).unet_fwd == 2


def test_ism_with_exact_inversion_leaves_the_classifier_direction(latents: Tensor) -> None:
    """With exact hops, e(x_s, s) equals e(x_t, t) of the empty prompt; for two points m and m0 the gradient
    is B lambda s (m0 - m) at every t."""
    assert grad_of(ISM(point_prior(), guidance_scale=7.5), latents).abs().max() < 1e-8
    prior = point_prior(POINT, OTHER)
    expected = (4 * 0.1 * 7.5 * (OTHER - POINT)).view(1, *SHAPE).double().expand_as(latents)
    for step in range(5):
        for cls in (ISM, TSM):
            assert torch.allclose(grad_of(cls(prior, guidance_scale=7.5), latents, step), expected, atol=1e-8)


def test_ism_is_a_difference_of_two_clean_estimates(latents: Tensor) -> None:
    """g = B lambda (x0(x_s, s) - x0(x_t, t)), because x_t lies on the line given by e(x_s, s)."""
    prior = exact_prior()
    method, rng, text = ISM(prior, guidance_scale=7.5), Rng(0).at(3), exact_text(prior)
    between = method.interval.draw(PROGRESS, rng)
    noise = rng.randn("eps", latents.shape, dtype=torch.float64)
    noise = noise + 0.1 * rng.randn("eps_offset", (1, SHAPE[0], 1, 1), dtype=torch.float64)
    x_t, eps_s = method.trajectory(latents, noise, between, text.empty.expand(4))
    at_s, at_t = level(prior.alphas_cumprod, between.s), level(prior.alphas_cumprod, between.t)
    x_s = ddim_hop(x_t, eps_s, at_t, at_s)
    eps_t, _, _ = prior.eps_cfg(
        x_t, timestep(between.t, x_t), text.plain.expand(4), text.empty.expand(4), 7.5
    )
    difference = eps_to_x0(x_s, eps_s, *at_s) - eps_to_x0(x_t, eps_t, *at_t)
    assert torch.allclose(grad_of(method, latents), 4 * 0.1 * difference, atol=1e-9)


def test_tsm_becomes_ism_as_its_point_reaches_s(latents: Tensor) -> None:
    prior = exact_prior()
    ism = grad_of(ISM(prior, guidance_scale=7.5), latents)
    assert torch.allclose(grad_of(TSM(prior, guidance_scale=7.5, gamma=1.0), latents), ism, atol=1e-12)
    assert (grad_of(TSM(prior, guidance_scale=7.5), latents) - ism).abs().max() > 1e-3


def test_tsm_s_point_lies_on_the_hop_to_t(latents: Tensor) -> None:
    """x_mu is the point at mu on the straight hop from x_s to x_t, in x / a and s / a."""
    prior = exact_prior()
    method, rng, text = TSM(prior, guidance_scale=7.5), Rng(0).at(3), exact_text(prior)
    between = method.interval.draw(PROGRESS, rng)
    mu = between.between(0.3)
    asked: list[tuple[int, Tensor]] = []
    eps = prior.eps
    prior.eps = lambda x, t, texts: asked.append((int(t[0]), x)) or eps(x, t, texts)  # type: ignore[func-returns-value]
    x_t, _ = method.trajectory(latents, latents, between, text.empty.expand(4))
    (s, x_s), (last, x_mu) = asked[-2:]
    assert (s, last) == (between.s, mu)
    assert s < mu < between.t
    at = [level(prior.alphas_cumprod, each) for each in (s, mu, between.t)]
    y_s, y_mu, y_t = (x / a for x, (a, _) in zip((x_s, x_mu, x_t), at, strict=True))
    sigma_s, sigma_mu, sigma_t = (sigma / a for a, sigma in at)
    share = (sigma_mu - sigma_s) / (sigma_t - sigma_s)
    assert torch.allclose(y_mu, (1 - share) * y_s + share * y_t, atol=1e-10)


@pytest.mark.parametrize("weighting", ["one", "sds"])
def test_cds_in_both_algebraic_forms(latents: Tensor, weighting: str) -> None:
    """Variance-exploding coordinates y = z + sigma n, and the difference of two denoised estimates."""
    prior = exact_prior()
    method = CDS(prior, guidance_scale=7.5, weighting=weighting)  # type: ignore[arg-type]
    text, rng = exact_text(prior), Rng(0).at(3)
    u, t = method.timesteps(4, PROGRESS, rng, "cpu")
    (a_u, s_u), (a_t, s_t) = alpha_sigma(prior.alphas_cumprod, u), alpha_sigma(prior.alphas_cumprod, t)
    sigma_u, sigma_t = s_u / a_u, s_t / a_t

    def guided(y: Tensor, sigma: Tensor, at: Tensor) -> Tensor:
        x = y / torch.sqrt(1.0 + sigma**2)
        return prior.eps_cfg(x, at, text.plain.expand(4), text.empty.expand(4), 7.5)[0]

    y_t = latents + sigma_t * method.noise
    eps_t = guided(y_t, sigma_t, t)
    y_u = y_t + (sigma_u - sigma_t) * eps_t
    eps_u = guided(y_u, sigma_u, u)
    weight = s_t**2 if weighting == "sds" else 1.0
    grad = grad_of(method, latents)
    assert torch.allclose(grad, weight * (eps_t - eps_u), atol=1e-10)
    denoised_t, denoised_u = y_t - sigma_t * eps_t, y_u - sigma_u * eps_u
    assert torch.allclose(grad, weight * (denoised_u - denoised_t) / sigma_u, atol=1e-10)


def test_cds_vanishes_where_the_estimate_is_consistent(latents: Tensor) -> None:
    assert grad_of(CDS(point_prior(), guidance_scale=7.5), latents).abs().max() < 1e-9


def test_cds_keeps_one_noise_for_the_run() -> None:
    prior = exact_prior()
    noise = CDS(prior, guidance_scale=7.5, seed=3).noise
    assert noise.shape == (1, *SHAPE)
    assert torch.equal(noise, CDS(prior, guidance_scale=20.0, seed=3).noise)
    assert not torch.equal(noise, CDS(prior, guidance_scale=7.5, seed=4).noise)


def test_cds_guidance_follows_its_schedule_or_stays(latents: Tensor) -> None:
    prior, schedule = exact_prior(), [0.0, 101.0, 51.0, 1.0]
    ramp = CDS(prior, guidance_scale=101, guidance_schedule=schedule)
    assert [scheduled(ramp.guidance, f) for f in (0.0, 0.5, 1.0)] == [101.0, 76.0, 51.0]
    held = CDS(prior, guidance_scale=20.0, guidance_schedule=schedule)
    assert [scheduled(held.guidance, f) for f in (0.0, 0.5, 1.0)] == [20.0] * 3
    late = Progress(50, 100)
    constant = CDS(prior, guidance_scale=76.0)
    assert torch.allclose(
        grad_of(ramp, latents, progress=late), grad_of(constant, latents, progress=late), atol=1e-10
    )


def test_cds_clamp_is_on_every_element(latents: Tensor) -> None:
    prior = exact_prior()
    free = grad_of(CDS(prior, guidance_scale=51.0), latents)
    assert free.abs().max() > 2.6
    clamped = grad_of(CDS(prior, guidance_scale=51.0, grad_clamp=(0.0, 2.0, 8.0, 1.0)), latents)
    assert torch.allclose(clamped, free.clamp(-2.6, 2.6), atol=1e-12)


@pytest.mark.parametrize("cls", [CSD, SDI, ISM, TSM, CDS])
def test_items_of_a_batch_are_independent(latents: Tensor, cls: type[Method]) -> None:
    """dL/dz = grad / B; ISM and TSM sum over the batch, the others average."""
    prior = exact_prior()
    scale = None if cls is CSD else 7.5
    whole = grad_of(cls(prior, guidance_scale=scale), latents)
    part = grad_of(cls(prior, guidance_scale=scale), latents[:2])
    factor = 2.0 if cls in (ISM, TSM) else 1.0
    assert torch.allclose(whole[:2], factor * part, atol=1e-10)


@pytest.mark.parametrize("cls", [SDI, ISM, TSM])
def test_perp_neg_with_one_text_for_all_views_is_plain_guidance(latents: Tensor, cls: type[Method]) -> None:
    """The analytic prior is the same for every view, so Perp-Neg has no effect but doubles the cost."""
    prior = exact_prior()
    plain, pushed = (cls(prior, guidance_scale=7.5, perp_neg=flag) for flag in (False, True))
    late = Progress(60, 100)  # here LucidDreamer's two roundings of the interval agree
    expected = grad_of(plain, latents, progress=late)
    assert torch.allclose(grad_of(pushed, latents, progress=late), expected, atol=1e-8)
    rng = Rng(0).at(3)
    calls = 2 if cls in (ISM, TSM) else plain.cost(late, 1, rng).unet_fwd
    assert pushed.cost(late, 1, rng).unet_fwd - plain.cost(late, 1, rng).unet_fwd == calls


def test_plain_sds_of_ism_has_the_noise_for_target(latents: Tensor) -> None:
    prior: AnalyticPrior = exact_prior()
    text: PromptText = exact_text(prior)
    method, rng = ISM(prior, guidance_scale=7.5, plain_sds=True, noise_offset=0.0), Rng(0).at(3)
    t = method.interval.draw(PROGRESS, rng).t
    a, s = level(prior.alphas_cumprod, t)
    noise = rng.randn("eps", latents.shape, dtype=torch.float64)
    x_t = add_noise(latents, noise, a, s)
    eps, _, _ = prior.eps_cfg(x_t, timestep(t, x_t), text.plain.expand(4), text.empty.expand(4), 7.5)
    assert torch.allclose(grad_of(method, latents), 4 * 0.1 * (s / a) * (eps - noise), atol=1e-10)
