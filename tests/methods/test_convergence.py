"""Each method, run by the core on a latent canvas, converges on the exact Gaussian prior: to the mode, or for
Consistent3D to the sample of its fixed noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from exact import SHAPE, D, exact_eps, exact_eps_cfg, exact_prior, gaussian, sd_abar

from trace_bench.cameras import CameraRange
from trace_bench.diffusion.place_noise import background
from trace_bench.distill import distill
from trace_bench.methods.base import Method
from trace_bench.methods.bsd import BSD
from trace_bench.methods.cfd import CFD
from trace_bench.methods.consistent3d import CDS
from trace_bench.methods.csd import CSD
from trace_bench.methods.dreamer_xl import TSM
from trace_bench.methods.ism import ISM
from trace_bench.methods.nfsd import NFSD
from trace_bench.methods.sctd import SCTD
from trace_bench.methods.sdi import SDI
from trace_bench.methods.sds import SDS
from trace_bench.methods.sds_bridge import SDSBridge
from trace_bench.methods.trace import TraCe
from trace_bench.methods.vsd import VSD
from trace_bench.priors.analytic import AnalyticPrior, Gaussian
from trace_bench.progress import Progress
from trace_bench.representations.image import Image
from trace_bench.seeding import Rng

pytestmark = pytest.mark.long  # whole runs of every method

RANGE = CameraRange(distance=(2.0, 2.0), fovy_deg=(45.0, 45.0), elevation_deg=(0.0, 0.0))


def end_of_run(method: Method, steps: int = 800) -> np.ndarray:
    """The canvas after a run with four views per step, as a flat vector, averaged over the last fifth of the
    run to reduce noise."""
    canvas = Image(None, 2, SHAPE, seed=0, device="cpu", mode="latent", lr=0.05)
    canvas.canvas.data = canvas.canvas.data.double()  # same precision as the prior
    late: list[torch.Tensor] = []

    def on_step(k: int, log: dict[str, float]) -> None:
        if k >= 0.8 * steps:
            late.append(canvas.canvas.detach().clone())

    distill(
        method.prior,
        method,
        canvas,
        method.embed("y"),
        RANGE,
        steps=steps,
        views_per_step=4,
        resolution=2,
        background="black",
        rng=Rng(0),
        on_step=on_step,
    )
    return torch.stack(late).mean(0).double().numpy().reshape(D)


@pytest.mark.parametrize(
    ("cls", "settings", "steps", "tolerance"),
    [
        (SDS, {}, 800, 0.15),
        (VSD, {"lora_lr": 0.01}, 1600, 0.25),  # its adapter must learn first
        (VSD, {"lora_lr": 0.01, "gamma": -0.25}, 2000, 0.25),
        (TraCe, {"lora_lr": 0.01}, 800, 0.15),
        (TraCe, {"grad_form": "released", "train_lora": False}, 800, 0.25),  # the bridge's noise remains
        (SDI, {"remap": True}, 400, 0.15),  # as released: predicts at another level than it inverted to
        (SDSBridge, {"switch": 1.0, "prompt_suffixes": {"source": None, "target": ""}}, 800, 0.15),
        (ISM, {}, 600, 0.15),
        (TSM, {}, 600, 0.15),
    ],
    ids=["sds", "vsd", "asd", "trace", "trace_official", "sdi", "sds_bridge", "ism", "dreamer_xl"],
)
def test_without_a_rival_the_mode_is_reached(
    cls: type[Method], settings: dict[str, Any], steps: int, tolerance: float
) -> None:
    """Conditional and unconditional distributions are equal, so guidance has no effect and the mode is the
    mean. The canvas starts two to three units away."""
    prior = exact_prior(same=True)
    end = end_of_run(cls(prior, guidance_scale=7.5, **settings), steps)
    mode = prior.gaussians[0].mean.numpy()
    assert np.abs(end - mode).max() < tolerance, (end, mode)


def test_guided_sds_ends_where_its_expected_gradient_vanishes() -> None:
    """With two distributions, the fixed point of guidance is beyond the conditional mean, at the root of the
    expected gradient, which is affine in z."""
    prior = exact_prior()
    scale = 1.5

    def mean_gradient(z: np.ndarray) -> np.ndarray:
        terms = [
            (1 - sd_abar(t)) * exact_eps_cfg(prior, np.sqrt(sd_abar(t)) * z, t, scale)
            for t in np.arange(20, 981)
        ]
        return np.mean(terms, axis=0)

    root = root_of(mean_gradient)
    assert np.abs(root - prior.gaussians[0].mean.numpy()).max() > 0.3  # guidance moves it
    end = end_of_run(SDS(prior, guidance_scale=scale), steps=800)
    assert np.abs(end - root).max() < 0.15, (end, root)


def root_of(mean_gradient: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The root of an expected gradient that is affine in z: [D]."""
    offset = mean_gradient(np.zeros(D))
    jacobian = np.stack([mean_gradient(column) - offset for column in np.eye(D)], axis=1)
    return np.linalg.solve(jacobian, -offset)


def test_csd_ends_where_the_two_scores_are_equal_in_the_mean() -> None:
    """CSD does not pull towards the prompt's data, so it ends far from their mean."""
    prior = wide_empty_prior()

    def mean_gradient(z: np.ndarray) -> np.ndarray:
        terms = [
            (1 - sd_abar(t))
            * (
                exact_eps(prior, "y", np.sqrt(sd_abar(t)) * z, t)
                - exact_eps(prior, "", np.sqrt(sd_abar(t)) * z, t)
            )
            for t in np.arange(20, 981)
        ]
        return np.mean(terms, axis=0)

    root = root_of(mean_gradient)
    assert np.abs(root - prior.gaussians[0].mean.numpy()).max() > 0.1
    end = end_of_run(CSD(prior, two_branch=True, max_step_percent=0.98), steps=800)
    assert np.abs(end - root).max() < 0.15, (end, root)
    bridge = SDSBridge(prior, guidance_scale=1.5, prompt_suffixes={"source": None, "target": ""})
    end = end_of_run(bridge, steps=1200)  # the second stage is CSD
    assert np.abs(end - root).max() < 0.15, (end, root)


def test_nfsd_ends_where_its_expected_gradient_vanishes() -> None:
    """Below t = 200 it is SDS without the noise, above CSD."""
    prior = wide_empty_prior()

    def mean_gradient(z: np.ndarray) -> np.ndarray:
        terms = []
        for t in np.arange(20, 981):
            a = np.sqrt(sd_abar(t))
            prompt, empty = (exact_eps(prior, name, a * z, t) for name in ("y", ""))
            terms.append((1 - sd_abar(t)) * (7.5 * (prompt - empty) + (empty if t < 200 else 0.0)))
        return np.mean(terms, axis=0)

    end = end_of_run(NFSD(prior, guidance_scale=7.5), steps=800)
    assert np.abs(end - root_of(mean_gradient)).max() < 0.15


def wide_empty_prior() -> AnalyticPrior:
    """The prompt's data are narrower than the empty text's in every direction, so that CSD converges."""
    y = gaussian(1)
    return AnalyticPrior(
        {"y": y, "": Gaussian(torch.zeros(D, dtype=torch.float64), 4.0 * y.covariance)}, SHAPE
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_consistent3d_ends_at_the_sample_of_its_noise(seed: int) -> None:
    """With equal distributions, at late u = 100: the point where the estimate along the path is constant."""
    prior = exact_prior(same=True)
    method = CDS(prior, guidance_scale=1.0, seed=seed, u_range=(100, 100), grad_clamp=None)
    noise = method.noise.reshape(D).double().numpy()

    def mean_gradient(z: np.ndarray) -> np.ndarray:
        terms = []
        for t in range(200, 400):
            sigma_t, sigma_u = (np.sqrt((1 - sd_abar(v)) / sd_abar(v)) for v in (t, 100))
            y_t = z + sigma_t * noise
            e_t = exact_eps(prior, "y", y_t / np.sqrt(1 + sigma_t**2), t)
            y_u = y_t + (sigma_u - sigma_t) * e_t
            terms.append(e_t - exact_eps(prior, "y", y_u / np.sqrt(1 + sigma_u**2), 100))
        return np.mean(terms, axis=0)

    root = root_of(mean_gradient)
    assert np.abs(root - prior.gaussians[0].mean.numpy()).max() > 0.1  # a sample, not the mode
    end = end_of_run(method, steps=800)
    assert np.abs(end - root).max() < 0.15, (end, root)


def test_bsd_ends_beyond_the_data_like_csd() -> None:
    """Where the scores of the two texts are equal: for small t at 4/3 of the data's mean, for larger t
    farther from the empty text's mean, which is 0."""
    prior = wide_empty_prior()
    mean = prior.gaussians[0].mean.numpy()
    end = end_of_run(BSD(prior), steps=800)
    factor = end @ mean / (mean @ mean)
    assert 4 / 3 < factor < 1.6
    assert np.abs(end - factor * mean).max() < 0.15, (end, factor * mean)


@pytest.mark.parametrize("seed", [0, 1])
def test_cfd_ends_where_the_prediction_is_its_noise(seed: int) -> None:
    """At one t: e(a z + s n) = n, which is z = mu + (a / s) Sigma n."""
    prior = exact_prior(same=True)
    anneal = ((0.0, 0.5),)
    method = CFD(prior, guidance_scale=1.0, seed=seed, noise="fixed", anneal=anneal)
    noise = background(seed, SHAPE).reshape(D).numpy()
    abar = sd_abar(method.timestep(Progress(0, 1)))
    mode, covariance = prior.gaussians[0].mean.numpy(), prior.gaussians[0].covariance.numpy()
    expected = mode + np.sqrt(abar / (1 - abar)) * covariance @ noise
    assert np.abs(expected - mode).max() > 0.1
    end = end_of_run(method, steps=800)
    assert np.abs(end - expected).max() < 0.15, (end, expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_sctd_ends_where_both_ways_lead_back(seed: int) -> None:
    """With equal distributions, at the root of the mean of its gradient over the segments."""
    prior = exact_prior(same=True)
    method = SCTD(prior, guidance_scale=7.5, seed=seed, warmup=0.0)
    noise = method.noise.reshape(D).numpy()
    drawn = [method.draw(Progress(0, 1), Rng(9).at(k)) for k in range(1500)]

    def hop(x: np.ndarray, e: np.ndarray, u: int, v: int) -> np.ndarray:
        (a_u, s_u), (a_v, s_v) = ((np.sqrt(sd_abar(t)), np.sqrt(1 - sd_abar(t))) for t in (u, v))
        return a_v * (x - s_u * e) / a_u + s_v * e

    def mean_gradient(z: np.ndarray) -> np.ndarray:
        terms = []
        for each in drawn:
            x_e = np.sqrt(sd_abar(each.e)) * z + np.sqrt(1 - sd_abar(each.e)) * noise
            x, u = x_e, each.e
            if each.is_two_hops:
                x, u = hop(x, exact_eps(prior, "y", x, u), u, each.s), each.s
            x_t = hop(x, exact_eps(prior, "y", x, u), u, each.t)
            guided = exact_eps(prior, "y", x_t, each.t)
            x_s = hop(x_t, guided, each.t, each.s)
            through_s = hop(x_s, exact_eps(prior, "y", x_s, each.s), each.s, each.e)
            direct = hop(x_t, guided, each.t, each.e)
            ratio = np.sqrt((1 - sd_abar(each.t)) / sd_abar(each.t))
            terms.append(ratio * (through_s - x_e + 8.5 * (x_e - direct)))
        return np.mean(terms, axis=0)

    root = root_of(mean_gradient)
    end = end_of_run(method, steps=800)
    assert np.abs(end - root).max() < 0.15, (end, root, prior.gaussians[0].mean)
