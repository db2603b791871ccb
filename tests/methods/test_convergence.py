"""Each method, run by the core on a latent canvas, ends at the known mode of the exact Gaussian prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from exact import SHAPE, D, exact_eps_cfg, exact_prior, exact_text, sd_abar

from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.methods.base import Method
from trace_bench.methods.sds import SDS
from trace_bench.methods.trace import TraCe
from trace_bench.methods.vsd import VSD
from trace_bench.representations.image import Image
from trace_bench.seeding import Rng

RANGE = CameraRange(distance=(2.0, 2.0), fovy_deg=(45.0, 45.0), elevation_deg=(0.0, 0.0))


def end_of_run(method: Method, steps: int = 800) -> np.ndarray:
    """The canvas after a run of four views a step, as a flat vector; the last fifth of the run is averaged,
    so that what is left of the noise does not count."""
    canvas = Image(None, 2, SHAPE, seed=0, device="cpu", mode="latent", lr=0.05)
    late: list[torch.Tensor] = []

    def on_step(k: int, log: dict[str, float]) -> None:
        if k >= 0.8 * steps:
            late.append(canvas.canvas.detach().clone())

    distill(
        method.prior,
        method,
        canvas,
        exact_text(method.prior),  # type: ignore[arg-type]
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
        (VSD, {"lora_lr": 0.01}, 1600, 0.25),  # its adapter has to learn first
        (TraCe, {"lora_lr": 0.01}, 800, 0.15),
        (TraCe, {"grad_form": "released", "train_lora": False}, 800, 0.25),  # keeps the bridge's noise
    ],
    ids=["sds", "vsd", "trace", "trace_official"],
)
def test_without_a_rival_the_mode_is_reached(
    cls: type[Method], settings: dict[str, Any], steps: int, tolerance: float
) -> None:
    """Conditional and unconditional distribution are the same: guidance has no effect, the mode is the mean.
    The canvas starts two to three units away."""
    prior = exact_prior(same=True)
    end = end_of_run(cls(prior, guidance_scale=7.5, **settings), steps)
    mode = prior.gaussians[0].mean.numpy()
    assert np.abs(end - mode).max() < tolerance, (end, mode)


def test_guided_sds_ends_where_its_expected_gradient_vanishes() -> None:
    """With two distributions the fixed point of guidance lies beyond the conditional mean, at the root of the
    mean gradient, which is linear in z."""
    prior = exact_prior()
    scale = 1.5

    def mean_gradient(z: np.ndarray) -> np.ndarray:
        terms = [
            (1 - sd_abar(t)) * exact_eps_cfg(prior, np.sqrt(sd_abar(t)) * z, t, scale)
            for t in np.arange(20, 981)
        ]
        return np.mean(terms, axis=0)

    offset = mean_gradient(np.zeros(D))
    jacobian = np.stack([mean_gradient(column) - offset for column in np.eye(D)], axis=1)
    root = np.linalg.solve(jacobian, -offset)
    assert np.abs(root - prior.gaussians[0].mean.numpy()).max() > 0.3  # guidance moves it
    end = end_of_run(SDS(prior, guidance_scale=scale), steps=800)
    assert np.abs(end - root).max() < 0.15, (end, root)
