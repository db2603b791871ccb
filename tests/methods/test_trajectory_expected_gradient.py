"""Monte-Carlo means of the gradients of CSD, SDI, ISM, TSM and CDS against closed forms on the exact prior.

Every prediction is affine in the noise, so its mean over the noise is the closed form at zero noise. Draws
shared by the whole batch (SDI's overshoot, ISM's interval and offset) are used as drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact import SHAPE, D, cameras, exact_eps, exact_prior, sd_abar

from trace_bench.methods.base import Method
from trace_bench.methods.consistent3d import CDS
from trace_bench.methods.csd import CSD
from trace_bench.methods.dreamer_xl import TSM
from trace_bench.methods.ism import ISM
from trace_bench.methods.sdi import SDI
from trace_bench.priors.analytic import AnalyticPrior, Gaussian
from trace_bench.priors.text import embed_prompt
from trace_bench.progress import Progress
from trace_bench.seeding import Rng, StepRng

SCALE = 3.0
BATCH, DRAWS = 1024, 6
PROGRESS = Progress(600, 1700)
SHARE = 600 / 1700
Z = torch.randn(D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.fixture
def prior() -> AnalyticPrior:
    """Three distributions: the prompt's, the negative prompt's and the empty one's."""
    y, empty = exact_prior().gaussians
    generator = torch.Generator().manual_seed(9)
    root = torch.randn(D, D, generator=generator, dtype=torch.float64) / 2.0
    negative = Gaussian(torch.randn(D, generator=generator, dtype=torch.float64), root @ root.T + 0.1)
    return AnalyticPrior({"y": y, "n": negative, "": empty}, SHAPE)


def assert_equal_in_mean(method: Method, expected: Callable[[StepRng], np.ndarray]) -> None:
    """The mean of g minus the closed form of its step is zero within its standard error."""
    text = embed_prompt(method.prior, "y", "n")
    latents = Z.view(1, *SHAPE).expand(BATCH, *SHAPE)
    residuals, sizes = [], []
    for step in range(DRAWS):
        rng = Rng(0).at(step)
        grad = method.step(latents, text, cameras(BATCH), PROGRESS, rng).grad.reshape(BATCH, D).numpy()
        answer = expected(rng)
        residuals.append(grad - answer)
        sizes.append(np.linalg.norm(answer))
    every = np.concatenate(residuals)
    mean, error = every.mean(0), every.std(0) / math.sqrt(len(every))
    assert np.all(np.abs(mean) < 4.5 * error + 1e-9), (mean, error)
    assert np.linalg.norm(mean) < 0.1 * np.mean(sizes)


def levels(t: int) -> tuple[float, float]:
    abar = float(sd_abar(np.array(max(t, 0))))
    return math.sqrt(abar), math.sqrt(1.0 - abar)


def predict(prior: AnalyticPrior, name: str, x: np.ndarray, t: int) -> np.ndarray:
    return exact_eps(prior, name, x, max(t, 0))


def guided(prior: AnalyticPrior, x: np.ndarray, t: int, scale: float) -> np.ndarray:
    negative = predict(prior, "n", x, t)
    return negative + scale * (predict(prior, "y", x, t) - negative)


def hop(x: np.ndarray, e: np.ndarray, u: int, v: int) -> np.ndarray:
    (a_u, s_u), (a_v, s_v) = levels(u), levels(v)
    return a_v * (x - s_u * e) / a_u + s_v * e


@pytest.mark.parametrize("two_branch", [False, True])
def test_csd(prior: AnalyticPrior, two_branch: bool) -> None:
    c_n = -1.0 if two_branch else -1.0 + 0.5 * SHARE
    terms = []
    for t in range(20, 981):
        a, s = levels(t)
        x = a * Z.numpy()
        score = predict(prior, "y", x, t) + c_n * predict(prior, "n", x, t)
        terms.append(s**2 * (score + (-1.0 - c_n) * predict(prior, "", x, t)))
    mean = np.mean(terms, axis=0)
    assert_equal_in_mean(CSD(prior, two_branch=two_branch), lambda rng: mean)


@pytest.mark.parametrize("remap", [False, True])
def test_sdi(prior: AnalyticPrior, remap: bool) -> None:
    t = int(1000 * (0.25 + 0.73 * (1 - SHARE)))

    def expected(rng: StepRng) -> np.ndarray:
        z = Z.numpy()
        last = t + int(rng.randint("delta", 0, 100, 1))
        x, u = z, -99
        for v in [*(v for v in range(1, 1000, 100) if v < t), last]:
            x, u = hop(x, guided(prior, x, u, -SCALE), u, v), v
        (a, s), (a_last, s_last) = levels(t), levels(last)
        if remap:
            x = a * z + s * (x - a_last * z) / s_last
        return z - (x - s * guided(prior, x, t, SCALE)) / a

    method = SDI(prior, guidance_scale=SCALE, inversion_guidance_scale=-SCALE, remap=remap)
    assert_equal_in_mean(method, expected)


def carried_up(prior: AnalyticPrior, rng: StepRng) -> tuple[np.ndarray, int, int]:
    """The mean of x_s given the interval and the offset of the one channel, and both timesteps."""
    offset = float(rng.randn("eps_offset", (1, 1, 1, 1), dtype=torch.float64))
    a, s = levels(1)
    x = a * Z.numpy() + s * 0.1 * offset
    rate = 1.0 - 601 / (0.3 * 1700) if 601 < 0.3 * 1700 else 0.0
    index = int(rng.randint("t", 20, 500 + int(480 * rate), 1))
    start = max(index - int(80 + 20 * rate), 0)
    at = 0
    while at < start:
        following = min(at + 200, start)
        x, at = hop(x, predict(prior, "", x, at + 1), at + 1, following + 1), following
    return x, start + 1, index + 1


def test_ism(prior: AnalyticPrior) -> None:
    def expected(rng: StepRng) -> np.ndarray:
        x_s, s, t = carried_up(prior, rng)
        e_s = predict(prior, "", x_s, s)
        a_t, s_t = levels(t)
        return BATCH * 0.1 * (s_t / a_t) * (guided(prior, hop(x_s, e_s, s, t), t, SCALE) - e_s)

    assert_equal_in_mean(ISM(prior, guidance_scale=SCALE), expected)


def test_tsm(prior: AnalyticPrior) -> None:
    def expected(rng: StepRng) -> np.ndarray:
        x_s, s, t = carried_up(prior, rng)
        mu = s + round((t - s) * math.sqrt(1 - 0.3**2))
        e_s = predict(prior, "", x_s, s)
        e_mu = predict(prior, "", hop(x_s, e_s, s, mu), mu)
        a_t, s_t = levels(t)
        return BATCH * 0.1 * (s_t / a_t) * (guided(prior, hop(x_s, e_s, s, t), t, SCALE) - e_mu)

    assert_equal_in_mean(TSM(prior, guidance_scale=SCALE), expected)


def test_cds(prior: AnalyticPrior) -> None:
    """Its one noise is fixed; the mean is over the gap."""
    method = CDS(prior, guidance_scale=SCALE)
    u = int(700 - 600 * math.sqrt(SHARE))
    terms = []
    for gap in range(100, 300):
        t = min(u + gap, 980)
        a, s = levels(t)
        x = a * Z.numpy() + s * method.noise.numpy().reshape(D)
        e_t = guided(prior, x, t, SCALE)
        terms.append(e_t - guided(prior, hop(x, e_t, t, u), u, SCALE))
    mean = np.mean(terms, axis=0)
    assert_equal_in_mean(method, lambda rng: mean)
