"""RewardSDS: the coefficients, identities, and what is explored, rated and counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from exact import SHAPE, cameras, exact_prior, exact_text
from linear_prior import LINES, LinearPrior, Z, at, drawing, gradient

from trace_bench.diffusion.inversion import ddim_hop, level
from trace_bench.diffusion.schedules import eps_to_x0, scaled_linear_alphas_cumprod
from trace_bench.methods.reward_sds import RewardSDS, shares
from trace_bench.methods.sds import SDS
from trace_bench.priors.base import Work
from trace_bench.progress import Progress
from trace_bench.rewards.base import Reward
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError

ABAR = scaled_linear_alphas_cumprod()
EARLY = Progress(0, 10)


class Planned(Reward):
    """Gives the numbers of `plan` in turn and keeps what it sees."""

    metrics: ClassVar[tuple[str, ...]] = ("clip_score",)

    def __init__(self, plan: Sequence[float] = (0.0,), device: str = "cpu") -> None:
        super().__init__(device)
        self.plan, self.seen = list(plan), []

    def __call__(self, prompt: str, rgb: torch.Tensor) -> Any:
        self.counter.reward += len(rgb)
        self.seen.append((prompt, rgb))
        return self.rate(prompt, rgb)

    def rate(self, prompt: str, pictures: Any) -> Any:
        return np.resize(np.array(self.plan, np.float32), len(pictures))

    def files(self, download: bool) -> list[Path]:
        return []

    def tflop(self) -> float:
        return 1.0

    def identity(self) -> dict[str, Any]:
        return {}


def method(prior: Any, plan: Sequence[float] = (0.0,), **settings: Any) -> RewardSDS:
    spec = {"_target_": f"{__name__}.Planned", "plan": list(plan)}
    return RewardSDS(prior, **{"guidance_scale": 7.5, "reward": spec} | settings)


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# --- coefficients -----------------------------------------------------------------------------------------

G = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
R = torch.tensor([[0.2, -0.5, 1.1, 0.4]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("strategy", "value"), [("min_max", 3.0), ("weighted", 2.753711233081842), ("best", 3.0)]
)
def test_the_check_values(strategy: Any, value: float) -> None:
    assert (shares(R, strategy)[0] @ G).item() == pytest.approx(value, rel=1e-12)


def test_the_weights_of_the_softmax() -> None:
    wanted = [0.19314001, 0.09591049, 0.47504776, 0.23590174]
    assert shares(R, "weighted")[0].tolist() == pytest.approx(wanted, abs=1e-8)


def test_two_candidates_are_told_apart_and_one_is_kept_whole() -> None:
    assert shares(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "min_max").tolist() == [
        pytest.approx([-0.1, 0.9]),
        pytest.approx([0.9, -0.1]),
    ]
    for strategy in ("min_max", "weighted", "best"):
        assert shares(torch.tensor([[5.0]]), strategy).tolist() == [[1.0]]


# --- identities -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"noise_candidates": 1}, {"rewarded_share": 0.0}])
def test_one_candidate_is_sds(latents: torch.Tensor, settings: dict[str, Any]) -> None:
    prior, view, rng = exact_prior(), cameras(3), Rng(1).at(0)
    one = method(prior, strategy="best", **settings)
    sds = SDS(prior, guidance_scale=7.5)
    got, wanted = (each.step(latents, exact_text(prior), view, EARLY, rng) for each in (one, sds))
    assert torch.equal(got.grad, wanted.grad)
    assert torch.equal(got.target, wanted.target)
    assert one.cost(EARLY, 3, rng) == Work(unet_fwd=6)


def draws_of_sds(prior: Any, latents: torch.Tensor, n: int) -> list[torch.Tensor]:
    """SDS's g for the noises of the candidates."""

    class Other(Rng):
        purpose = "eps"

    found = []
    for i in range(n):
        rng = Rng(1).at(0)
        draw = rng.randn
        object.__setattr__(
            rng, "randn", lambda purpose, *a, i=i, draw=draw: draw("eps" if i == 0 else f"eps/{i}", *a)
        )
        sds = SDS(prior, guidance_scale=7.5)
        found.append(sds.step(latents, exact_text(prior), cameras(3), EARLY, rng).grad)
    return found


def test_equal_rewards_give_the_mean_of_sds(latents: torch.Tensor) -> None:
    prior = exact_prior()
    got = method(prior, strategy="weighted").step(latents, exact_text(prior), cameras(3), EARLY, Rng(1).at(0))
    mean = torch.stack(draws_of_sds(prior, latents, 4)).mean(0)
    assert torch.allclose(got.grad, mean, rtol=1e-12, atol=1e-12)


def test_the_best_candidate_of_each_view_is_taken(latents: torch.Tensor) -> None:
    prior = exact_prior()
    best = method(prior, (0.0, 1.0, 7.0, 2.0), strategy="best")
    got = best.step(latents, exact_text(prior), cameras(3), EARLY, Rng(1).at(0))
    assert torch.allclose(got.grad, draws_of_sds(prior, latents, 4)[2], rtol=1e-12, atol=1e-12)
    assert got.log["reward_best"] == 7.0


def test_rewards_without_meaning_give_eight_tenths_of_sds() -> None:
    """With rewards that do not depend on the noise, the mean of min-max is 0.8 times that of SDS."""
    prior = LinearPrior()
    settings = {"noise_candidates": 4, "exploration_steps": 1, **at(500)}
    ours, sds = method(prior, (3.0, 1.0, 0.0, 2.0), **settings), SDS(prior, guidance_scale=7.5, **at(500))
    means = [np.mean([gradient(each, rng=Rng(0).at(k)) for k in range(144)]) for each in (ours, sds)]
    spread = np.std([gradient(sds, rng=Rng(0).at(k)) for k in range(144)]) / 12
    assert abs(means[0] - 0.8 * means[1]) < 4 * spread


# --- exploration and cost ---------------------------------------------------------------------------------


def test_the_picture_is_that_of_guided_hops_from_the_true_level() -> None:
    """From t itself, not from the next level of the grid, as the released 2D program has it."""
    prior = LinearPrior()
    ours = method(prior, noise_candidates=2, exploration_steps=4, exploration_scale=3.0, **at(600))
    gradient(ours, rng=drawing())
    (gain, shift), (empty, _) = LINES["y"], LINES[""]
    x, u = level(ABAR, 600)[0] * Z + level(ABAR, 600)[1] * -0.3, 600
    for v in (501, 251, 1):
        eps = empty * x + 3.0 * (gain * x + shift - empty * x)
        x, u = ddim_hop(x, eps, level(ABAR, u), level(ABAR, v)), v
    eps = empty * x + 3.0 * (gain * x + shift - empty * x)
    clean = eps_to_x0(x, eps, *level(ABAR, 1))
    ((prompt, rgb),) = ours.reward.seen
    assert prompt == "y"
    assert rgb.flatten().tolist() == pytest.approx([(clean.item() + 1) / 2] * 2, rel=1e-12)


def test_the_grid_is_that_of_the_released_program() -> None:
    ours = method(exact_prior())
    assert ours.grid[:2] + ours.grid[-1:] == [1, 67, 925]
    assert ours.below(979) == ours.grid[::-1]
    assert ours.below(67) == [1]
    assert ours.below(1) == []


def test_the_mean_cost_is_nearly_that_of_the_released_program() -> None:
    """There 72.6 rows a view and step; here no hop leads from a timestep to itself."""
    ours = method(exact_prior())
    costs = [ours.cost(EARLY, 1, drawing(t=t)) for t in range(21, 980, 2)]
    assert np.mean([cost.unet_fwd for cost in costs]) == 72.35
    assert {(cost.vae_dec, cost.reward) for cost in costs} == {(4, 4)}


def test_what_is_declared_is_counted(latents: torch.Tensor) -> None:
    prior = exact_prior()
    ours, rng = method(prior, noise_candidates=3, rewarded_share=0.5), Rng(3).at(0)
    for progress in (EARLY, Progress(5, 10)):
        before = prior.counter + Work()
        ours.step(latents, exact_text(prior), cameras(3), progress, rng)
        assert prior.counter - before == ours.cost(progress, 3, rng)
    assert prior.counter.reward == 9


# --- mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reward": None}, "needs a reward; choose one of conf/reward/ with reward=NAME"),
        ({"reward": {"model": "x"}}, "no _target_"),
        ({"reward": {"_target_": "trace_bench.rewards.clip.Clip", "modl": "x"}}, "modl is not a setting"),
        ({"reward": {"_target_": "trace_bench.progress.Progress"}}, "is no Reward; choose one"),
        ({"strategy": "worst"}, "is not one of min_max, weighted, best"),
        ({"noise_candidates": 0}, "noise_candidates=0 must be from 1"),
        ({"exploration_steps": 1001}, "exploration_steps=1001 must be from 1 to 1000"),
    ],
)
def test_a_mistake_is_one_sentence(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(TraceBenchError, match=words) as error:
        method(exact_prior(), **settings)
    assert "\n" not in str(error.value)
