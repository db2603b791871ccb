"""Perp-Neg's weights, texts and direction, and interpolated view text, against the published formulas."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from trace_bench.cameras import make_cameras
from trace_bench.priors.base import TextEmbedding, Work
from trace_bench.priors.perp_neg import (
    guided_eps,
    guided_items,
    lucid_dreamer_text,
    perp_neg_direction,
    threestudio_text,
)
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.priors.text import VIEWS, PromptText, embed_prompt

AZIMUTHS = [0.0, 10.0, -17.0, 45.0, -60.0, 73.0, 89.0, 90.0, -91.0, 120.0, -163.0, 170.0, 180.0]


def cameras(azimuths: list[float], elevation: float = 15.0):
    n = len(azimuths)
    full = torch.ones(n)
    return make_cameras(elevation * full, torch.tensor(azimuths), 2.0 * full, 45.0 * full, 8, 8)


@pytest.fixture
def text() -> PromptText:
    """Embeddings are unit vectors, so that mixing weights can be read off."""
    views = TextEmbedding(torch.eye(4).view(4, 1, 4), 10.0 * torch.eye(4))
    one = TextEmbedding(torch.zeros(1, 1, 4), torch.zeros(1, 4))
    return PromptText(plain=one, views=views, negative=one, empty=one)


def threestudio_row(azimuth: float) -> tuple[dict[str, float], float, float]:
    """Positive shares, weight of the front view, weight of the side view."""
    az = abs(azimuth)
    if az < 90:
        r = 1 - az / 90
        front = -(4 * math.exp(-0.5 * r) - 2.426)
        side = -(4 * math.exp(-0.5 * (1 - r)) - 2.426)
        return {"front": r, "side": 1 - r}, front, side
    r = 2 - az / 90
    return {"side": r, "back": 1 - r}, -(math.exp(-0.5 * r) + 0.967), -(math.exp(-0.5 * r) - 0.606)


def lucid_dreamer_row(azimuth: float) -> tuple[dict[str, float], float, float]:
    az = abs(azimuth)
    if az < 90:
        r = 1 - az / 90
        front = 0.0 if r > 0.8 else -2 * math.exp(-2 * r)
        side = 0.0 if r < 0.2 else -2 * math.exp(-10 * (1 - r))
        return {"front": r, "side": 1 - r}, front, side
    r = 2 - az / 90
    return {"side": r, "back": 1 - r}, -2.0, 0.0 if r > 0.8 else -math.exp(-10 * r)


@pytest.mark.parametrize("form", ["threestudio", "lucid_dreamer"])
def test_texts_and_weights(text: PromptText, form: str) -> None:
    view = cameras(AZIMUTHS)
    got = threestudio_text(text, view, 60.0) if form == "threestudio" else lucid_dreamer_text(text, view)
    row_of = threestudio_row if form == "threestudio" else lucid_dreamer_row
    for i, azimuth in enumerate(AZIMUTHS):
        shares, front, side = row_of(azimuth)
        expected = torch.tensor([shares.get(name, 0.0) for name in VIEWS])
        assert torch.allclose(got.positive.tokens[i, 0], expected, atol=1e-6), azimuth
        assert got.positive.pooled is not None
        assert torch.allclose(got.positive.pooled[i], 10 * expected, atol=1e-5)
        assert got.weights[i].tolist() == pytest.approx([front, side], abs=1e-6), azimuth
        assert got.negatives[0].tokens[i, 0].tolist() == [0, 1, 0, 0]
        assert got.negatives[1].tokens[i, 0].tolist() == [1, 0, 0, 0]
    assert torch.equal(text.interpolated(view).tokens, got.positive.tokens)


def test_overhead_is_threestudio_s_alone(text: PromptText) -> None:
    view = cameras(AZIMUTHS, elevation=61.0)
    above = threestudio_text(text, view, 60.0)
    assert above.positive.tokens[:, 0].tolist() == [[0, 0, 0, 1]] * len(AZIMUTHS)
    assert not above.weights.any()
    level = cameras(AZIMUTHS)
    assert torch.equal(lucid_dreamer_text(text, view).positive.tokens, text.interpolated(level).tokens)


def test_direction_is_pushed_perpendicularly() -> None:
    positive, front, side = torch.randn(3, 2, 4, 8, 8, dtype=torch.float64)
    weights = torch.tensor([[-1.5, -0.2], [0.0, 0.0]], dtype=torch.float64)
    got = perp_neg_direction(positive, (front, side), weights)
    assert torch.equal(got[1], positive[1])
    p, expected = positive[0].flatten(), positive[0].flatten().clone()
    for weight, other in zip(weights[0], (front[0].flatten(), side[0].flatten()), strict=True):
        expected += weight * (other - (other @ p) / (p @ p) * p)
    assert torch.allclose(got[0].flatten(), expected, atol=1e-12)
    assert torch.allclose(
        (got[0] - positive[0]).flatten() @ p, torch.zeros((), dtype=torch.float64), atol=1e-9
    )


def test_guided_eps_is_four_items_in_one_call(checkpoints: tuple[Path, Path]) -> None:
    prior = StableDiffusionPrior(str(checkpoints[0]), resolution=16, dtype="float64")
    text = embed_prompt(prior, "a red cube", "blurry")
    view = cameras([20.0, -100.0])
    x, t = torch.randn(2, 4, 8, 8, dtype=torch.float64), torch.tensor([300, 500])
    cond, uncond = threestudio_text(text, view, 60.0), text.negative.expand(2)
    before = prior.counter + Work()
    got = guided_eps(prior, x, t, cond, uncond, 7.5)
    assert prior.counter - before == Work(unet_fwd=2 * guided_items(perp_neg=True))
    u = prior.eps(x, t, uncond)
    differences = [prior.eps(x, t, each) - u for each in (cond.positive, *cond.negatives)]
    direction = perp_neg_direction(differences[0], (differences[1], differences[2]), cond.weights)
    assert torch.allclose(got, u + 7.5 * direction, atol=1e-9)


def test_without_perp_neg_guided_eps_is_classifier_free_guidance(prior: StableDiffusionPrior) -> None:
    text = embed_prompt(prior, "a red cube", "blurry")
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([300, 500])
    cond, uncond = text.plain.expand(2), text.negative.expand(2)
    before = prior.counter + Work()
    got = guided_eps(prior, x, t, cond, uncond, 7.5)
    assert prior.counter - before == Work(unet_fwd=2 * guided_items(perp_neg=False))
    assert torch.equal(got, prior.eps_cfg(x, t, cond, uncond, 7.5)[0])
