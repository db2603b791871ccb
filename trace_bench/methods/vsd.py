"""VSD: variational score distillation (Wang et al. 2023, ProlificDreamer, eq. 9 and algorithm 1), and ASD:
adversarial score distillation (Wei et al. 2024), which trains the same network on another loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.schedules import add_noise, alpha_sigma, eps_to_x0
from trace_bench.methods.base import Distilled, check_choice
from trace_bench.methods.random_timestep import RandomTimestep
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.tensors import load_optimizer


class VSD(RandomTimestep):
    """g = w(t) (e_cfg(x_t, t, y) - e_phi(x_t, t, y, c)) with w(t) = s_t^2.

    e_phi is a LoRA network that learns the score of the renders. After each direction it trains for one
    step on its own t' ~ U{0..T-1} and noise eps', on x_t' = a z + s eps'.

    ASD adds gamma times the loss against the prior's own prediction e(x_t', t', y): e_phi is the
    discriminator. Its best answer is then (E[eps' | x_t'] + gamma e) / (1 + gamma), so that ASD at scale s is
    1 / (1 + gamma) times VSD at scale (1 + gamma) s - gamma.

    Args:
        min_step_percent, max_step_percent, t_schedule: range of t (`timesteps.TimestepSchedule`).
        lora_rank, lora_lr, lora_betas, lora_eps, lora_weight_decay: the adapter and its AdamW.
        camera_dropout: probability that the adapter trains on an all-zero camera.
        gamma: weight of the prior's prediction in the adapter's loss, above -1; 0 is VSD.
        discriminator_target: that prediction itself (`consistent`), or the released code's velocity, made of
            the prediction and the clean latents, which is the noise s^2 eps' + a^2 e (`released`).
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        lora_rank: int = 4,
        lora_lr: float = 1e-4,
        lora_betas: Sequence[float] = (0.9, 0.99),
        lora_eps: float = 1e-15,
        lora_weight_decay: float = 0.01,
        camera_dropout: float = 0.1,
        gamma: float = 0.0,
        discriminator_target: Literal["consistent", "released"] = "consistent",
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.camera_dropout = camera_dropout
        if gamma <= -1.0:
            raise TraceBenchError(
                f"method.gamma={gamma} must be above -1: below, the adapter's loss has no minimum."
            )
        self.gamma = gamma
        self.discriminator_target = check_choice(
            "discriminator_target", discriminator_target, ("consistent", "released")
        )
        self.adapter = prior.adapter(lora_rank, self.seed)
        self.optimizer = torch.optim.AdamW(
            self.adapter.parameters(),
            lr=lora_lr,
            betas=(lora_betas[0], lora_betas[1]),
            eps=lora_eps,
            weight_decay=lora_weight_decay,
            fused=True,
        )

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """The direction with the current adapter, then one training step of the adapter."""
        n = latents.shape[0]
        t = self.draw_t(n, progress, rng, latents.device)
        a, s = alpha_sigma(self.prior.alphas_cumprod, t)
        x_t = add_noise(latents, rng.randn("eps", latents.shape, latents.device, latents.dtype), a, s)
        camera = view.c2w.reshape(n, 16).to(latents)
        plain = text.plain.expand(n)

        cond = text.view_dependent(view, self.view_thresholds)
        eps_cfg, _, _ = self.prior.eps_cfg(x_t, t, cond, text.negative.expand(n), self.guidance_scale)
        with torch.no_grad():
            eps_phi = self.adapter.to_eps(self.adapter.predict(x_t, t, plain, camera), x_t, t)
        lora_loss = self.train_adapter(latents, plain, cond, camera, rng)
        if progress.k == 0:
            self.adapter.check_trains()
        return Distilled(s**2 * (eps_cfg - eps_phi), {"lora_loss": lora_loss}, t=t)

    def train_adapter(
        self, latents: Tensor, plain: TextEmbedding, cond: TextEmbedding, camera: Tensor, rng: StepRng
    ) -> Tensor:
        """One AdamW step on the denoising loss of the renders; returns the loss, detached.

        `plain` conditions the adapter, `cond` the prior's prediction if gamma is not 0.
        """
        t = rng.randint("lora_t", 0, len(self.prior.alphas_cumprod), latents.shape[0], latents.device)
        eps = rng.randn("lora_eps", latents.shape, latents.device, latents.dtype)
        a, s = alpha_sigma(self.prior.alphas_cumprod, t)
        x_t = add_noise(latents, eps, a, s)
        if rng.chance("camera_dropout", self.camera_dropout):
            camera = torch.zeros_like(camera)
        targets = [(1.0, self.adapter.target(latents, eps, t))]
        if self.gamma:
            seen = self.prior.eps(x_t, t, cond)
            if self.discriminator_target == "released":
                seen = s**2 * eps + a**2 * seen
            targets.append((self.gamma, self.adapter.target(eps_to_x0(x_t, seen, a, s), seen, t)))

        def loss(raw: Tensor) -> Tensor:
            terms = [weight * torch.nn.functional.mse_loss(raw, target) for weight, target in targets]
            return sum(terms[1:], terms[0])

        _, value = self.adapter.train(x_t, t, plain, camera, loss)
        self.optimizer.step()
        return value

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """A guided pair, the adapter's prediction, its training item with a backward pass, and the prior's
        prediction there if gamma is not 0."""
        return Work(unet_fwd=(4 + (self.gamma != 0.0)) * batch, unet_bwd=batch)

    def state_dict(self) -> dict[str, Any]:
        """Adapter and optimiser."""
        return {"adapter": self.adapter.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.adapter.load_state_dict(state["adapter"])
        load_optimizer(self.optimizer, state["optimizer"])
