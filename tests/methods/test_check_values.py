"""Timesteps, hops and weights of CSD, SDI, ISM, TSM, CDS and HiFA's annealing against known numbers."""

from __future__ import annotations

import math

import pytest
import torch
from exact import exact_prior

from trace_bench.diffusion.inversion import (
    Interval,
    IntervalSchedule,
    ddim_hop,
    ddim_std,
    level,
    offset_noise,
    sdi_timesteps,
)
from trace_bench.diffusion.schedules import scaled_linear_alphas_cumprod
from trace_bench.methods.consistent3d import CDS
from trace_bench.methods.csd import CSD
from trace_bench.methods.sdi import SDI
from trace_bench.methods.sds import SDS
from trace_bench.methods.vsd import VSD
from trace_bench.progress import Progress
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError

ABAR = scaled_linear_alphas_cumprod()
INTERVALS = IntervalSchedule()


def test_ddim_hop_on_a_scalar() -> None:
    u, v = level(ABAR, 101), level(ABAR, 201)
    x, eps = (torch.tensor(value, dtype=torch.float64) for value in (1.0, 0.3))
    assert ddim_hop(x, eps, u, v).item() == pytest.approx(0.97704565, abs=5e-9)
    assert ddim_std(u, v).item() == pytest.approx(0.26095687, abs=5e-9)
    assert 0.3 * ddim_std(u, v).item() == pytest.approx(0.07828706, abs=5e-9)


def test_ddim_hop_there_and_back_is_nothing_and_hops_add_up() -> None:
    x, eps = torch.randn(2, 2, 4, 8, 8, dtype=torch.float64)
    s, mu, t = (level(ABAR, each) for each in (420, 496, 500))
    there = ddim_hop(x, eps, s, t)
    assert torch.allclose(ddim_hop(there, eps, t, s), x, atol=1e-13)
    assert torch.allclose(ddim_hop(ddim_hop(x, eps, s, mu), eps, mu, t), there, atol=1e-13)


def test_the_schedule_stays_put_below_zero() -> None:
    assert level(ABAR, -99)[0].item() == pytest.approx(math.sqrt(0.99915), abs=1e-9)
    assert level(ABAR, -99) == level(ABAR, 0)


def test_sdi_timesteps_over_the_run() -> None:
    method = SDI(exact_prior(), guidance_scale=7.5)
    got = [method.timestep(Progress(k, 10_000)) for k in (0, 2500, 5000, 7500, 9999)]
    assert got == [980, 797, 615, 432, 250]
    every = [method.timestep(Progress(k, 10_000)) for k in range(10_000)]
    assert every == sorted(every, reverse=True)
    calls = [len(sdi_timesteps(t, 0)) - 1 for t in every]
    assert sum(calls) / len(calls) == pytest.approx(7.63, abs=0.005)


@pytest.mark.parametrize(
    ("t", "hops"), [(250, 4), (300, 4), (500, 6), (501, 6), (502, 7), (700, 8), (900, 10), (980, 11)]
)
def test_sdi_grid(t: int, hops: int) -> None:
    grid = sdi_timesteps(t, overshoot=37)
    assert grid[0] == -99
    assert grid[-1] == min(t + 37, 999)
    assert grid[1:-1] == [u for u in (1, 101, 201, 301, 401, 501, 601, 701, 801, 901) if u < t]
    assert len(grid) - 1 == hops
    assert sdi_timesteps(t, 37, first=False) == grid[1:]


def test_sdi_overshoot_is_below_one_stride_and_shared_by_the_batch() -> None:
    method = SDI(exact_prior(), guidance_scale=7.5)
    last = [method.grid(500, Rng(0).at(k))[-1] - 500 for k in range(2000)]
    assert (min(last), max(last)) == (0, 99)


def test_sdi_needs_a_timestep_to_start_from() -> None:
    with pytest.raises(TraceBenchError, match="min_step_percent"):
        SDI(exact_prior(), guidance_scale=7.5, min_step_percent=0.001)


@pytest.mark.parametrize(("iteration", "upper", "gap"), [(1, 979, 99), (750, 740, 90), (1500, 500, 80)])
def test_ism_intervals(iteration: int, upper: int, gap: int) -> None:
    progress = Progress(iteration - 1, 5000)
    assert INTERVALS.upper(progress) == upper
    assert INTERVALS.gap(progress) == gap
    assert INTERVALS.gap(progress, round_up=True) == {99: 100}.get(gap, gap)


def test_ism_draws_one_timestep_above_the_index() -> None:
    drawn = [INTERVALS.draw(Progress(4000, 5000), Rng(0).at(k)) for k in range(6000)]
    assert (min(i.t for i in drawn), max(i.t for i in drawn)) == (21, 500)
    assert all(i.s == max(i.t - 80, 1) for i in drawn)


@pytest.mark.parametrize(
    ("s", "grid"),
    [(1, [1]), (2, [1, 2]), (201, [1, 201]), (202, [1, 201, 202]), (420, [1, 201, 401, 420])],
)
def test_ism_grid(s: int, grid: list[int]) -> None:
    assert INTERVALS.timesteps(s) == grid


def test_ism_average_number_of_predictions_on_the_way_up() -> None:
    """2.66 over LucidDreamer's run, where s = 1 is hopped to from itself; 2.55 without that hop."""
    released, ours = 0.0, 0.0
    for k in range(0, 5000, 50):
        progress = Progress(k, 5000)
        indices = range(INTERVALS.t_min, INTERVALS.upper(progress))
        starts = [max(i - INTERVALS.gap(progress), 0) for i in indices]
        released += sum(max(math.ceil(s / 200), 1) + 1 for s in starts) / len(indices)
        ours += sum(len(INTERVALS.timesteps(s + 1)) for s in starts) / len(indices)
    assert released / 100 == pytest.approx(2.66, abs=0.01)
    assert ours / 100 == pytest.approx(2.55, abs=0.01)


@pytest.mark.parametrize(("t", "weight"), [(21, 0.14146332), (101, 0.34618671), (501, 1.62369208)])
def test_ism_weight(t: int, weight: float) -> None:
    a, s = level(ABAR, t)
    assert (s / a).item() == pytest.approx(weight, abs=5e-9)


@pytest.mark.parametrize(("s", "t", "mu"), [(420, 500, 496), (800, 900, 895)])
def test_tsm_point_between(s: int, t: int, mu: int) -> None:
    assert Interval(s, t).between(0.3) == mu
    assert Interval(s, t).between(1.0) == s
    assert Interval(s, t).between(0.0) == t


def test_an_unknown_interval_setting_is_named() -> None:
    with pytest.raises(TraceBenchError, match=r"interval\.detla is not one of t_min, .*delta,"):
        IntervalSchedule.of({"detla": 50})


def test_offset_noise_has_one_offset_a_channel_for_the_whole_batch() -> None:
    like = torch.zeros(3, 4, 32, 32)
    rng = Rng(0).at(0)
    offset = offset_noise(like.shape, 0.1, rng, like) - offset_noise(like.shape, 0.0, rng, like)
    assert torch.allclose(offset, offset[:1, :, :1, :1].expand_as(offset), atol=1e-6)
    assert len(set(offset[0, :, 0, 0].tolist())) == 4
    draws = torch.stack([offset_noise((1, 4, 1, 1), 5.0, Rng(0).at(k), like) for k in range(4000)])
    assert draws.std().item() == pytest.approx(math.sqrt(26.0), rel=0.03)


def test_cds_timesteps() -> None:
    method = CDS(exact_prior(), guidance_scale=101.0)
    runs = [Progress(k, 3000) for k in (0, 750, 1500, 2250)]
    got = [int(method.timesteps(1, run, Rng(0).at(0), "cpu")[0]) for run in runs]
    assert got == [700, 400, 275, 180]
    assert int(method.timesteps(1, Progress(3000, 3000), Rng(0).at(0), "cpu")[0]) == 100
    u, t = method.timesteps(4000, Progress(0, 3000), Rng(0).at(0), "cpu")
    assert u.unique().tolist() == [700]
    assert (t.min().item(), t.max().item()) == (800, 980)
    u, t = method.timesteps(4000, Progress(1500, 3000), Rng(0).at(0), "cpu")
    assert ((t - u).min().item(), (t - u).max().item()) == (100, 299)


def test_csd_coefficients() -> None:
    method = CSD(exact_prior())
    assert [method.coefficients(Progress(k, 10_000)) for k in (0, 5000, 10_000)] == [
        (-1.0, 0.0),
        (-0.75, -0.25),
        (-0.5, -0.5),
    ]
    assert CSD(exact_prior(), two_branch=True).coefficients(Progress(5000, 10_000)) == (-1.0, 0.0)


@pytest.mark.parametrize(
    ("cls", "scale", "values"),
    [(SDS, 101.0, [980, 500, 20]), (VSD, 7.5, [980, 500, 20]), (CSD, None, [980, 500, 20])],
)
def test_square_root_annealing_is_for_every_method_that_draws_t_from_a_range(
    cls: type[SDS], scale: float, values: list[int]
) -> None:
    """HiFA: from 0.98 to 0.02 of the schedule with the square root of the run."""
    method = cls(exact_prior(), guidance_scale=scale, t_schedule="sqrt")
    got = [
        method.t_range.draw(3, 1000, Progress(k, 10_000), Rng(0).at(k)).tolist() for k in (0, 2500, 10_000)
    ]
    assert got == [[t] * 3 for t in values]


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(TraceBenchError, match=r"method\.t_schedule='cosine' is not one of uniform, sqrt"):
        SDS(exact_prior(), guidance_scale=1.0, t_schedule="cosine")  # type: ignore[arg-type]
    with pytest.raises(TraceBenchError, match="t_schedule"):
        VSD(exact_prior(), guidance_scale=1.0, t_schedule="cosine")  # type: ignore[arg-type]
    with pytest.raises(TraceBenchError, match="t_schedule"):
        CSD(exact_prior(), t_schedule="cosine")  # type: ignore[arg-type]
    with pytest.raises(TraceBenchError, match="reduction"):
        SDI(exact_prior(), guidance_scale=1.0, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(TraceBenchError, match="weighting"):
        CDS(exact_prior(), guidance_scale=1.0, weighting="two")  # type: ignore[arg-type]
