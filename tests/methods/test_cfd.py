"""CFD and FSD: values computed by hand in double precision, and identities."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from configured import composed
from exact import SHAPE, cameras, exact_prior, exact_text
from linear_prior import LINES, LinearPrior, Z, answer, at, gradient

from trace_bench.diffusion.inversion import ddim_invert, level
from trace_bench.diffusion.place_noise import background
from trace_bench.diffusion.schedules import scaled_linear_alphas_cumprod
from trace_bench.methods.base import Geometry
from trace_bench.methods.cfd import CFD
from trace_bench.methods.sds import SDS
from trace_bench.progress import Progress
from trace_bench.seeding import Rng
from trace_bench.settings.fractions import with_numbers
from trace_bench.system.errors import TraceBenchError

ABAR = scaled_linear_alphas_cumprod()


def at_step(t: int) -> tuple[tuple[float, float], ...]:
    """An annealing that stays at `t`."""
    return ((0.0, 1.0 - (t / 1000 - 0.02) / 0.96),)


@pytest.mark.parametrize(("t", "value"), [(100, 10.19407265237561), (500, 37.29546450591359)])
def test_value_and_target(t: int, value: float) -> None:
    method = CFD(
        LinearPrior(),
        guidance_scale=71.0,
        noise="random",
        anneal=at_step(t),
        negative_prompt="negative",
    )
    made = answer(method)
    assert made.grad.item() == pytest.approx(value, rel=1e-11)
    assert made.target is not None
    assert Z - made.target.item() == pytest.approx(value, rel=1e-11)


KNOTS = {
    "sd-stage1": (25000, ((0.0, 0.0), (0.1, 0.3), (0.5, 0.6), (1.0, 0.8))),
    "2d": (1000, ((0.0, 0.0), (1.0, 1.0))),
    "mvdream-stage1": (10000, ((0.0, 0.0), (0.5, 0.4), (1.0, 0.7))),
    "sd-mesh-texture-stage3": (20000, ((0.0, 0.6), (1.0, 0.75))),
}


@pytest.mark.parametrize(
    ("name", "steps", "timesteps"),
    [
        ("sd-stage1", [0, 1250, 2500, 7500, 12500, 18750, 24999], [980, 836, 692, 548, 404, 308, 212]),
        ("2d", [0, 250, 500, 750, 999], [980, 740, 500, 260, 21]),
        ("mvdream-stage1", [0, 2500, 5000, 7500, 9999], [980, 788, 596, 452, 308]),
        ("sd-mesh-texture-stage3", [0, 10000, 19999], [404, 332, 260]),
    ],
)
def test_timesteps(name: str, steps: list[int], timesteps: list[int]) -> None:
    total, knots = KNOTS[name]
    method = CFD(exact_prior(), guidance_scale=1.0, anneal=knots)
    assert [method.timestep(Progress(k, total)) for k in steps] == timesteps


def test_the_yaml_has_the_first_stage_s_annealing() -> None:
    assert with_numbers("", composed("cfd", "sd21"))["anneal"] == [list(k) for k in KNOTS["sd-stage1"][1]]


@pytest.mark.parametrize("anneal", [(), ((0.0, 0.0), (0.5, 0.3), (0.5, 0.6)), ((1.0, 0.0), (0.0, 1.0))])
def test_knots_that_do_not_rise_are_refused(anneal: Any) -> None:
    with pytest.raises(TraceBenchError, match=r"method\.anneal=.* rising shares"):
        CFD(exact_prior(), guidance_scale=1.0, anneal=anneal)


@pytest.mark.parametrize("noise", ["random", "fixed"])
def test_with_fresh_noise_it_is_sds_with_another_weight(noise: Any) -> None:
    prior = exact_prior()
    latents = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    text, view, rng, progress = exact_text(prior), cameras(4), Rng(0).at(3), Progress(3, 10)
    sds = SDS(prior, guidance_scale=7.5, **at(300))
    ours = CFD(prior, guidance_scale=7.5, noise=noise, anneal=at_step(300), weighting="sds")
    assert ours.timestep(progress) == 300
    same = torch.allclose(
        ours.step(latents, text, view, progress, rng).grad,
        sds.step(latents, text, view, progress, rng).grad,
        atol=1e-12,
    )
    assert same == (noise == "random")
    ratio = CFD(prior, guidance_scale=7.5, noise="random", anneal=at_step(300))
    a, s = level(ABAR, 300)
    assert torch.allclose(
        ratio.step(latents, text, view, progress, rng).grad,
        sds.step(latents, text, view, progress, rng).grad / (a * s),
        atol=1e-12,
    )


def test_with_one_noise_a_run_is_the_ddim_trajectory() -> None:
    """z <- z - (1 - r_v / r_u) g from z = 0 keeps a z + s n at DDIM's state."""
    prior, noise, grid = LinearPrior(), 0.8, [*range(981, 0, -100), 1]

    def guided(x: torch.Tensor) -> torch.Tensor:
        (gain, shift), (gain_0, shift_0) = LINES["y"], LINES[""]
        empty = gain_0 * x + shift_0
        return empty + 7.5 * (gain * x + shift - empty)

    start = level(ABAR, grid[0])[1] * torch.tensor([[[[noise]]]], dtype=torch.float64)
    ddim = ddim_invert(start, grid, ABAR, lambda x, t: guided(x)).item()
    assert ddim == pytest.approx(-0.9721931297373262, rel=1e-11)

    z = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for u, v in pairwise(grid):
        method = CFD(prior, guidance_scale=7.5, noise="fixed", anneal=at_step(u))
        assert method.timestep(Progress(0, 10)) == u
        method.noise_of = lambda latents, *args: torch.full_like(latents, noise)  # type: ignore[method-assign]
        (a_u, s_u), (a_v, s_v) = level(ABAR, u), level(ABAR, v)
        g = gradient(method, z.item())
        z = z - (1 - (s_v / a_v) / (s_u / a_u)) * g
    assert z.item() == pytest.approx(-1.0060740143981999, rel=1e-11)
    a, s = level(ABAR, 1)
    assert (a * z + s * noise).item() == pytest.approx(ddim, rel=1e-11)


def test_kinds_of_noise() -> None:
    prior = exact_prior()
    latents = torch.zeros(2, *SHAPE, dtype=torch.float64)
    seen = Geometry(depth=1.5 * torch.ones(2, 2, 2, 1), alpha=torch.ones(2, 2, 2, 1))
    noises = {}
    for kind in ("random", "fixed", "worldmap", "surface"):
        method = CFD(prior, guidance_scale=1.0, noise=kind, seed=5)  # type: ignore[arg-type]
        assert method.uses_geometry == (kind in ("worldmap", "surface"))
        one, other = (method.noise_of(latents, cameras(2), seen, Rng(0).at(k)) for k in range(2))
        assert torch.equal(one, other) == (kind != "random")
        assert torch.equal(one[0], one[1]) == (kind != "random")  # two times the same camera
        noises[kind] = one
        again = CFD(prior, guidance_scale=1.0, noise=kind, seed=6)  # type: ignore[arg-type]
        other = again.noise_of(latents, cameras(2), seen, Rng(0).at(0))
        assert torch.equal(one, other) == (kind == "random")  # its draws come from the step
        assert method.state_dict() == {}
    assert torch.equal(noises["fixed"][0], background(5, SHAPE))
    assert not torch.equal(noises["surface"], noises["fixed"])
    assert not torch.equal(noises["worldmap"], noises["fixed"])


def test_mirrored_pictures_and_the_shape_do_not_go_together() -> None:
    prior = exact_prior()
    method = CFD(prior, guidance_scale=1.0, flip_probability=0.5)
    geometry = Geometry(torch.ones(1, 2, 2, 1), torch.ones(1, 2, 2, 1))
    latents = torch.zeros(1, *SHAPE, dtype=torch.float64)
    with pytest.raises(TraceBenchError, match="flip_probability must be 0"):
        method.take_step(latents, exact_text(prior), cameras(1), Progress(0, 10), Rng(0).at(0), geometry)


def test_an_unknown_noise_is_named() -> None:
    with pytest.raises(TraceBenchError, match=r"method\.noise='sky' is not one of random, fixed"):
        CFD(exact_prior(), guidance_scale=1.0, noise="sky")  # type: ignore[arg-type]
