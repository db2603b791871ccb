"""TraCe: trajectory-centric distillation along a Schrödinger bridge ("Walking the Schrödinger Bridge",
Algorithm 1), and the variant in its released code."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from trace_bench.cameras import Cameras
from trace_bench.diffusion.bridge import Bridge
from trace_bench.diffusion.schedules import (
    add_noise,
    alpha_sigma,
    dreamtime_timestep,
    dreamtime_weights,
    eps_to_v,
    eps_to_x0,
    velocity,
)
from trace_bench.methods.base import Distilled, Method, check_choice
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng
from trace_bench.system.tensors import load_optimizer


class TraCe(Method):
    """g = w(t) (e_phi(x_t, t, y, c) - (x_t - x_rndr) / sigma_t)   (Algorithm 1, line 7)

    x_rndr are the render's latents. x0_pred is the prior's one-step guided estimate of the clean latents,
    from x_rndr noised to t' (lines 3-4). x_t lies on the bridge between the two (line 6). e_phi is a LoRA
    network trained on the bridge noise b_t = (x_t - x0_pred) / sigma_t (line 8).

    Args:
        grad_form: `alg1` as above; `released`: g = w(t) (b_t - e_phi), the released code's sign and anchor.
        weighting: w(t) = 1 (`one`), sigma_t (`sigma`) or sigma_t^2 (`sigma2`).
        x0_noise: noise x_rndr to t' before the estimate, as the released code does; False follows line 4
            literally.
        x0_steps: (min, early max, late max) of t', upper ends excluded.
        x0_switch: share of the run after which the late maximum applies.
        t_sampling: `ramp` from t_max - 1 down to t_min over the run, or `uniform` in [t_min, t_max).
        train_lora: False keeps e_phi at the frozen v-model, which is the effect of the released code.
        adapter_trains: `lora_and_camera`: LoRA layers and camera MLP; `lora`: only the layers, as in the
            released optimiser.
        lora_target: `bridge_noise` (epsilon = b_t), `velocity` (the same in v-space) or
            `released_velocity` (a_t b_t - s_t x_t, as in the released code).
        lora_text: `view_dependent` prompt or `plain`.
        camera_dropout: probability that the adapter trains on an all-zero camera.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        guidance_scale: float,
        grad_form: Literal["alg1", "released"] = "alg1",
        weighting: Literal["one", "sigma", "sigma2"] = "one",
        x0_noise: bool = True,
        x0_steps: tuple[int, int, int] = (20, 700, 500),
        x0_switch: float = 700 / 1700,
        t_min: int = 20,
        t_max: int = 500,
        t_sampling: Literal["ramp", "uniform"] = "ramp",
        train_lora: bool = True,
        adapter_trains: Literal["lora_and_camera", "lora"] = "lora_and_camera",
        lora_target: Literal["bridge_noise", "velocity", "released_velocity"] = "bridge_noise",
        lora_text: Literal["view_dependent", "plain"] = "view_dependent",
        lora_rank: int = 4,
        lora_lr: float = 1e-3,
        camera_dropout: float = 0.1,
        **common: Any,
    ) -> None:
        super().__init__(prior, guidance_scale=guidance_scale, **common)
        self.guidance_scale: float = guidance_scale
        self.grad_form = check_choice("grad_form", grad_form, ("alg1", "released"))
        self.weighting = check_choice("weighting", weighting, ("one", "sigma", "sigma2"))
        self.x0_noise = x0_noise
        self.x0_min, self.x0_early, self.x0_late = x0_steps
        self.x0_switch = x0_switch
        self.t_min, self.t_max = t_min, t_max
        self.t_sampling = check_choice("t_sampling", t_sampling, ("ramp", "uniform"))
        self.train_lora = train_lora
        targets = ("bridge_noise", "velocity", "released_velocity")
        self.lora_target = check_choice("lora_target", lora_target, targets)
        self.lora_text = check_choice("lora_text", lora_text, ("view_dependent", "plain"))
        self.camera_dropout = camera_dropout
        self.bridge = Bridge.symmetric().to(prior.device, prior.alphas_cumprod.dtype)
        self._t_weights = dreamtime_weights(t_min, t_max, m1=980, m2=20, s1=1, s2=1)
        self.adapter = prior.adapter(lora_rank, self.seed)
        whole = check_choice("adapter_trains", adapter_trains, ("lora_and_camera", "lora")) != "lora"
        self.trained = self.adapter.parameters() if whole else self.adapter.lora_parameters()
        self.optimizer = torch.optim.Adam(self.trained, lr=lora_lr, fused=True)

    def step(
        self, latents: Tensor, text: PromptText, view: Cameras, progress: Progress, rng: StepRng
    ) -> Distilled:
        """Lines 3 to 8; one adapter forward pass serves both the direction and the adapter's loss."""
        n = latents.shape[0]
        cond = text.view_dependent(view, self.view_thresholds)
        x0_pred = self.predict_x0(latents, cond, text.negative.expand(n), progress, rng)
        t = self.bridge_timesteps(n, progress, rng, latents.device)
        xi = rng.randn("xi", latents.shape, latents.device, latents.dtype)
        x_t = self.bridge.sample(x0_pred, latents, t, xi)
        b_t = self.bridge.noise(x_t, x0_pred, t)
        lora_text = cond if self.lora_text == "view_dependent" else text.plain.expand(n)
        eps_phi, log = self.adapter_eps(x_t, b_t, t, lora_text, view, rng)
        if self.train_lora and progress.k == 0:
            self.adapter.check_trains()

        sigma = self.bridge.std_fwd[t].view(-1, 1, 1, 1)
        weights: dict[str, Tensor | float] = {"one": 1.0, "sigma": sigma, "sigma2": sigma**2}
        weight = weights[self.weighting]
        if self.grad_form == "alg1":
            return Distilled(weight * (eps_phi - (x_t - latents) / sigma), log, x0_pred, t)
        return Distilled(weight * (b_t - eps_phi), log, x0_pred, t)

    def predict_x0(
        self, latents: Tensor, cond: TextEmbedding, uncond: TextEmbedding, progress: Progress, rng: StepRng
    ) -> Tensor:
        """x0_pred = (z_t' - s e_cfg(z_t', t')) / a, the estimated target of the bridge: [B, C, h, w]."""
        n = latents.shape[0]
        high = self.x0_early if progress.fraction < self.x0_switch else self.x0_late
        t = rng.randint("x0_t", self.x0_min, high, n, latents.device)
        a, s = alpha_sigma(self.prior.alphas_cumprod, t)
        eps = rng.randn("x0_eps", latents.shape, latents.device, latents.dtype)
        z_t = add_noise(latents, eps, a, s) if self.x0_noise else latents
        eps_cfg, _, _ = self.prior.eps_cfg(z_t, t, cond, uncond, self.guidance_scale)
        return eps_to_x0(z_t, eps_cfg, a, s)

    def bridge_timesteps(
        self, n: int, progress: Progress, rng: StepRng, device: torch.device | None = None
    ) -> Tensor:
        """One falling t for the whole batch, or one uniform draw per sample: int64 [n]."""
        if self.t_sampling == "uniform":
            return rng.randint("t", self.t_min, self.t_max, n, device)
        ratio = (progress.k - 1) / progress.n
        t = dreamtime_timestep(self._t_weights, self.t_min, ratio)
        return torch.full((n,), t, device=device)

    def adapter_eps(
        self, x_t: Tensor, b_t: Tensor, t: Tensor, text: TextEmbedding, view: Cameras, rng: StepRng
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """e_phi(x_t, t, y, c) before this step's training, and the log of that training."""
        camera = view.c2w.reshape(-1, 16).to(x_t)
        if not self.train_lora:
            return self.frozen_eps(x_t, t, text, camera), {}
        dropped = rng.chance("camera_dropout", self.camera_dropout)
        eps_phi = self.frozen_eps(x_t, t, text, camera) if dropped else None

        def loss(raw: Tensor) -> Tensor:
            return self.lora_loss(self.adapter.to_eps(raw, x_t, t), x_t, b_t, t)

        seen = torch.zeros_like(camera) if dropped else camera
        raw, value = self.adapter.train(x_t, t, text, seen, loss)
        self.optimizer.step()
        return self.adapter.to_eps(raw, x_t, t) if eps_phi is None else eps_phi, {"lora_loss": value}

    @torch.no_grad()
    def frozen_eps(self, x_t: Tensor, t: Tensor, text: TextEmbedding, camera: Tensor) -> Tensor:
        """e_phi(x_t, t, y, c) without training."""
        return self.adapter.to_eps(self.adapter.predict(x_t, t, text, camera), x_t, t)

    def lora_loss(self, eps_phi: Tensor, x_t: Tensor, b_t: Tensor, t: Tensor) -> Tensor:
        """Mean squared error to the bridge noise (line 8), in epsilon or in v space."""
        mse = torch.nn.functional.mse_loss
        if self.lora_target == "bridge_noise":
            return mse(eps_phi, b_t)
        a, s = alpha_sigma(self.prior.alphas_cumprod, t)
        released = self.lora_target == "released_velocity"
        target = velocity(x_t, b_t, a, s) if released else eps_to_v(x_t, b_t, a, s)
        return mse(eps_to_v(x_t, eps_phi, a, s), target)

    def cost(self, progress: Progress, batch: int, rng: StepRng) -> Work:
        """A guided pair and one adapter item. Training adds a backward pass, and a second adapter item if the
        step drops the camera."""
        if not self.train_lora:
            return Work(unet_fwd=3 * batch)
        dropped = rng.chance("camera_dropout", self.camera_dropout)
        return Work(unet_fwd=(4 if dropped else 3) * batch, unet_bwd=batch)

    def state_dict(self) -> dict[str, Any]:
        """Adapter and optimiser."""
        return {"adapter": self.adapter.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.adapter.load_state_dict(state["adapter"])
        load_optimizer(self.optimizer, state["optimizer"])
