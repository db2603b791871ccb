"""RewardSDS: score distillation with several noises, weighted by a reward (Chachy et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.inversion import ddim_hop, level, timestep
from trace_bench.diffusion.schedules import add_noise, alpha_sigma, eps_to_x0
from trace_bench.methods.base import Distilled, check_choice
from trace_bench.methods.random_timestep import RandomTimestep
from trace_bench.priors.base import Prior, TextEmbedding, Work, classifier_free_guidance
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.rewards.base import Reward, make_reward
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError

Strategy = Literal["min_max", "weighted", "best"]
STRATEGIES = ("min_max", "weighted", "best")


def shares(rewards: Tensor, strategy: Strategy, kept: int = 2) -> Tensor:
    """The coefficients of the candidates with these rewards, one row per view: [B, n].

    `best`: 1 for the highest reward. `weighted`: softmax of the rewards. `min_max`: 0.9 for the mean of the
    `kept` highest and -0.1 for that of the `kept` lowest, at most half of the candidates each. A single
    candidate has 1.
    """
    n = rewards.shape[1]
    if n == 1:
        return torch.ones_like(rewards)
    if strategy == "weighted":
        return rewards.softmax(dim=1)
    order = rewards.argsort(dim=1, descending=True, stable=True)
    found = torch.zeros_like(rewards)
    if strategy == "best":
        return found.scatter(1, order[:, :1], 1.0)
    k = min(kept, n // 2)
    return found.scatter(1, order[:, :k], 0.9 / k).scatter(1, order[:, n - k :], -0.1 / k)


class RewardSDS(RandomTimestep):
    """g = sum_i c_i s_t^2 (e_cfg(x_t^i, t, y) - eps_i) over the candidates x_t^i = a_t z + s_t eps_i

    Each x_t^i is denoised by guided DDIM hops from t down the grid 1, 1 + T / m, 1 + 2 T / m, ..., decoded,
    and rated for the prompt by the reward; the ratings give the coefficients c_i (`shares`). With one
    candidate, and after `rewarded_share` of the run, it is SDS without a clamp.

    Args:
        reward: what rates the pictures: settings of `rewards.base.make_reward`.
        noise_candidates: noises per view and step.
        strategy: how ratings become coefficients.
        exploration_steps: m.
        exploration_scale: guidance scale of the hops.
        rewarded_share: share of the run with several candidates.
        min_step_percent, max_step_percent, t_schedule: range of t (`timesteps.TimestepSchedule`).
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        reward: Mapping[str, Any] | None = None,
        noise_candidates: int = 4,
        strategy: Strategy = "min_max",
        exploration_steps: int = 15,
        exploration_scale: float = 7.5,
        rewarded_share: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        if reward is None:
            raise TraceBenchError("RewardSDS needs a reward; choose one of conf/reward/ with reward=NAME.")
        self.reward: Reward = make_reward(reward, str(prior.device))
        self.reward.counter = prior.counter
        total = len(prior.alphas_cumprod)
        for key, value, most in (
            ("noise_candidates", noise_candidates, 1000),
            ("exploration_steps", exploration_steps, total),
        ):
            if not 1 <= value <= most:
                raise TraceBenchError(f"method.{key}={value} must be from 1 to {most}.")
        self.candidates = noise_candidates
        self.strategy = check_choice("strategy", strategy, STRATEGIES)
        self.exploration_scale, self.rewarded_share = exploration_scale, rewarded_share
        self.grid = [1 + i * (total // exploration_steps) for i in range(exploration_steps)]

    def candidates_at(self, progress: Progress) -> int:
        """Noises of each view at this step."""
        return self.candidates if progress.fraction < self.rewarded_share else 1

    def below(self, t: int) -> list[int]:
        """The timesteps of the hops after the first one from t, falling."""
        return [u for u in reversed(self.grid) if u < t]

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """One call for all candidates at t; then, for each view, the hops of its candidates."""
        n, m = len(latents), self.candidates_at(progress)
        t = self.draw_t(n, progress, rng)
        rows = torch.arange(n).repeat_interleave(m)  # of each candidate, view by view
        eps = torch.stack(
            [
                rng.randn("eps" if i == 0 else f"eps/{i}", latents.shape, latents.device, latents.dtype)
                for i in range(m)
            ],
            dim=1,
        ).flatten(0, 1)
        t_all = t[rows].to(latents.device)
        rows = rows.to(latents.device)
        a, s = alpha_sigma(self.prior.alphas_cumprod, t_all)
        x_t = add_noise(latents[rows], eps, a, s)
        cond = text.view_dependent(view, self.view_thresholds)[rows]
        negative = text.negative.expand(n * m)
        guided, eps_cond, eps_negative = self.prior.eps_cfg(x_t, t_all, cond, negative, self.guidance_scale)
        grads = (s**2 * (guided - eps)).unflatten(0, (n, m))
        if m == 1:
            return Distilled(grads[:, 0], target=eps_to_x0(x_t, guided, a, s), t=t)
        first = classifier_free_guidance(eps_cond, eps_negative, self.exploration_scale)
        rewards = torch.stack(
            [
                self.rate(x_t[own], int(t[i]), first[own], cond[own], text)
                for i, own in ((i, slice(i * m, (i + 1) * m)) for i in range(n))
            ]
        )
        weights = shares(rewards, self.strategy).view(n, m, 1, 1, 1)
        log = {"reward": rewards.mean(), "reward_best": rewards.amax(1).mean()}
        return Distilled((weights * grads).sum(1), log, t=t)

    def rate(self, x: Tensor, t: int, eps: Tensor, cond: TextEmbedding, text: PromptText) -> Tensor:
        """The rewards of one view's candidates x [m, C, h, w] at t, where `eps` is their prediction: [m]."""
        abar, negative = self.prior.alphas_cumprod, text.negative.expand(len(x))
        u = t
        for v in self.below(t):
            x = ddim_hop(x, eps, level(abar, u), level(abar, v))
            eps, _, _ = self.prior.eps_cfg(x, timestep(v, x), cond, negative, self.exploration_scale)
            u = v
        rgb = self.prior.decode(eps_to_x0(x, eps, *level(abar, u)))
        return torch.from_numpy(self.reward(text.prompt, rgb)).to(x)

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """A guided pair per candidate at t and at each hop, a decoded picture and its reward."""
        m = self.candidates_at(progress)
        if m == 1:
            return Work(unet_fwd=2 * batch)
        hops = sum(len(self.below(int(t))) for t in self.draw_t(batch, progress, rng))
        return Work(unet_fwd=2 * m * (batch + hops), vae_dec=m * batch, reward=m * batch)
