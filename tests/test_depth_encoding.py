"""Optional picture transforms in the core: depth instead of colours, mirrored pictures, clipped pixel
gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trace_bench.distill import depth_picture, encode, limited
from trace_bench.priors.analytic import AnalyticPrior, Gaussian
from trace_bench.render import Render
from trace_bench.seeding import Rng

SIDE = 2


@pytest.fixture
def prior() -> AnalyticPrior:
    """Its latents are 2 x - 1 of the picture itself."""
    d = 3 * SIDE**2
    return AnalyticPrior({"": Gaussian(torch.zeros(d), torch.eye(d))}, (3, SIDE, SIDE), torch.float32)


def view(depth: Tensor) -> Render:
    """Two views: the first sees depth 2, 4 and nothing, the second depth 3 and nothing."""
    alpha = torch.tensor([[[1.0, 1.0], [0.0, 0.5]], [[1.0, 0.0], [0.0, 0.0]]]).unsqueeze(-1)
    return Render(rgb=torch.full((2, SIDE, SIDE, 3), 0.25), alpha=alpha, depth=depth)


def depths(requires_grad: bool) -> Tensor:
    values = [[[2.0, 4.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 0.0]]]
    return torch.tensor(values).unsqueeze(-1).requires_grad_(requires_grad)


def test_depth_picture_is_disparity_of_each_view() -> None:
    depth = depths(requires_grad=True)
    picture = depth_picture(depth, view(depth).alpha)
    assert picture.shape == (2, SIDE, SIDE, 3)
    assert torch.equal(picture[..., 0], picture[..., 2])
    assert picture[0, ..., 0].flatten().tolist() == [1.0, 0.5, 0.0, 0.5]
    assert picture[1, ..., 0].flatten().tolist() == [1.0, 0.0, 0.0, 0.0]
    picture.sum().backward()
    assert depth.grad is not None
    assert torch.isfinite(depth.grad).all()
    assert (depth.grad[0, 0, 1] < 0).all()  # nearer is brighter
    assert not depth.grad[1, 1].any()  # empty pixels get no depth gradient


def test_an_empty_view_is_black() -> None:
    empty = torch.zeros(1, SIDE, SIDE, 1)
    assert not depth_picture(empty, empty).any()


def test_depth_is_encoded_in_its_share_of_the_steps(prior: AnalyticPrior) -> None:
    depth = depths(requires_grad=True)
    render = view(depth)
    colours = encode(prior, render, Rng(0).at(0), 0.0).latents
    assert torch.equal(colours, torch.full_like(colours, -0.5))
    of_depth = [
        not torch.equal(encode(prior, render, Rng(0).at(k), 0.2).latents.detach(), colours)
        for k in range(2000)
    ]
    assert sum(of_depth) / 2000 == pytest.approx(0.2, abs=0.03)
    encoded = encode(prior, render, Rng(0).at(of_depth.index(True)), 0.2)
    assert torch.allclose(encoded.latents[0, 0], torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert encoded.picture.requires_grad


def test_a_representation_without_depth_keeps_its_colours(prior: AnalyticPrior) -> None:
    render = view(depths(requires_grad=False))
    as_depth, plain = (encode(prior, render, Rng(0).at(0), share).latents for share in (1.0, 0.0))
    assert torch.equal(as_depth, plain)


def test_pictures_are_mirrored_in_their_share_of_the_steps(prior: AnalyticPrior) -> None:
    ramp = torch.arange(12.0).view(1, SIDE, SIDE, 3).expand(2, -1, -1, -1) / 12.0
    render = Render(rgb=ramp, alpha=torch.ones(2, SIDE, SIDE, 1), depth=torch.zeros(2, SIDE, SIDE, 1))
    plain = encode(prior, render, Rng(0).at(0)).latents
    steps = [encode(prior, render, Rng(0).at(k), flip_probability=0.5).latents for k in range(1000)]
    mirrored = [torch.equal(latents, plain.flip(-1)) for latents in steps]
    assert all(torch.equal(z, plain) or is_mirrored for z, is_mirrored in zip(steps, mirrored, strict=True))
    assert sum(mirrored) / 1000 == pytest.approx(0.5, abs=0.05)


def test_a_limited_gradient_keeps_its_direction_in_each_pixel() -> None:
    grad = torch.tensor([[0.2, -0.1, 0.0], [0.03, 0.01, -0.05], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[0.05, -0.025, 0.0], [0.03, 0.01, -0.05], [0.0, 0.0, 0.0]])
    assert torch.allclose(limited(grad, 0.05), expected)


def test_the_limit_holds_for_what_reaches_the_representation(prior: AnalyticPrior) -> None:
    rgb = torch.full((1, SIDE, SIDE, 3), 0.5, requires_grad=True)
    alpha, depth = torch.ones(1, SIDE, SIDE, 1), torch.zeros(1, SIDE, SIDE, 1)
    for limit, expected in ((None, 2.0), (0.05, 0.05)):
        render = Render(rgb=rgb * 1.0, alpha=alpha, depth=depth)
        encoding = encode(prior, render, Rng(0).at(0), pixel_gradient_limit=limit)
        pulled = encoding.pull_back(torch.ones_like(encoding.latents))
        (grad,) = torch.autograd.grad(encoding.picture, rgb, pulled)
        assert torch.allclose(grad, torch.full_like(grad, expected))
