"""What is behind full pixels costs next to nothing, and changes nothing."""

from __future__ import annotations

import numpy as np
import torch

from trace_bench.cameras import make_cameras
from trace_bench.representations.splat_cpu import bands, compositing, rasterization


def scene(hidden: int) -> list[torch.Tensor]:
    """Three opaque sheets of Gaussians in front of the camera, and `hidden` small ones behind them."""
    sheet = torch.cartesian_prod(torch.tensor([1.0, 1.1, 1.2]), *[torch.linspace(-1.5, 1.5, 16)] * 2)
    behind = torch.rand(hidden, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    means = torch.cat([sheet, behind])
    scales = torch.cat([torch.full((len(sheet), 3), 0.3), torch.full((hidden, 3), 0.05)])
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(means), 4).clone()
    colors = torch.rand(len(means), 3, generator=torch.Generator().manual_seed(1))
    opacities = torch.full((len(means),), 0.99)
    return [x.requires_grad_() for x in (means, quats, scales, opacities, colors)]


def render(params: list[torch.Tensor]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    camera = make_cameras(0.0, 0.0, 2.6, 42.0, 20, 20)
    image, _, _ = rasterization(
        *params, camera.viewmats, camera.Ks, 20, 20, backgrounds=torch.zeros(1, 3), render_mode="RGB+D"
    )
    return image.detach(), torch.autograd.grad(image.sin().sum(), params)


def test_hidden_gaussians_change_nothing_and_are_not_visited(monkeypatch):
    visited = []

    def sum_entries(ids, boxes, *others):
        visited.append(len(np.unique(ids[boxes[:, 0] < boxes[:, 1]])))
        bands.sum_entries(ids, boxes, *others)

    monkeypatch.setattr(compositing, "sum_entries", sum_entries)
    (image, grads), (all_image, all_grads) = render(scene(0)), render(scene(300))
    assert torch.equal(image, all_image)
    for own, both in zip(grads, all_grads, strict=True):
        assert torch.equal(own, both[: len(own)])
        assert not both[len(own) :].any()
    assert visited[0] == visited[1] < 500


def test_kernels_leave_the_interpreter_to_other_threads():
    for kernel in (bands.composite, bands.composite_vjp, bands.list_bands, bands.sum_entries):
        assert kernel.targetoptions["nogil"]
