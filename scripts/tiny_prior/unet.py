"""The denoisers: an epsilon UNet trained together with its text encoder, a v UNet fine-tuned from it, and a
flow UNet fine-tuned from that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scripts.tiny_prior.common import (
    Average,
    Log,
    Settings,
    average_gradients,
    learning_rate,
    load_if_there,
    save_atomic,
    save_grid,
    seeded,
    set_learning_rate,
    share,
)  # fmt: skip
from scripts.tiny_prior.data import PHRASE_SHARE, TrainingViews
from scripts.tiny_prior.tokenizer import MAX_LENGTH

WIDTH = 96  # of the text encoder, hence of cross-attention
BATCH = 32
TEXT_DROPOUT = 0.10
SNR_CAP = 5.0  # min-SNR weighting
SHIFT = 3.0  # of the flow's noise levels, as in Stable Diffusion 3
KINDS = {"unet": "epsilon", "unet_v": "v_prediction", "unet_flow": "flow"}  # what each stage's UNet predicts
PREVIEW = (
    "a red cube", "a blue torus", "a green cone on a yellow cube", "a duck, front view", "a duck, side view",
    "a duck, back view", "a red car, front view", "a red car, side view", "a blue house, front view",
    "a blue house, back view", "a penguin, front view", "a penguin, back view", "a purple mushroom",
    "a snowman",
    "a pink ice cream cone", "an orange star",
)  # fmt: skip


class Denoiser(nn.Module):
    """A UNet and its text encoder, trained jointly."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH,
                projection_dim=WIDTH, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=MAX_LENGTH, hidden_act="gelu",
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
        # No attention at 16 x 16: it takes half of the time on a CPU, and the lower levels determine the
        # layout.
        self.unet = UNet2DConditionModel(
            sample_size=16, in_channels=4, out_channels=4,
            layers_per_block=1, block_out_channels=(32, 64, 96),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH, attention_head_dim=8, norm_num_groups=8, use_linear_projection=True,
        )  # fmt: skip

    def forward(self, noisy: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """UNet output [B, 4, 16, 16] for latents, timesteps [B] and token ids [B, 16]."""
        states = self.text(input_ids=tokens).last_hidden_state
        return self.unet(noisy, t, encoder_hidden_states=states, return_dict=False)[0]


@dataclass
class Latents:
    """Cached posteriors: scaled mean and std [M, 4, 16, 16] float16; item i belongs to view i mod n_views."""

    mean: Tensor
    std: Tensor


def scheduler(kind: str) -> SchedulerMixin:
    """SD's noise schedule (scaled linear, 0.00085 to 0.012, 1000 steps), or SD 3's for `flow`."""
    if kind == "flow":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type=kind,
    )  # fmt: skip


def token_table(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """[N, 16] token ids."""
    ids = tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_LENGTH).input_ids
    return torch.tensor(ids)


class Batches:
    """Noisy latents, timesteps, tokens and targets of step k, determined by the seed and k."""

    def __init__(
        self, settings: Settings, views: TrainingViews, latents: Latents, tokenizer: CLIPTokenizer, stage: str
    ) -> None:
        self.settings, self.stage, self.latents = settings, stage, latents
        self.kind = KINDS[stage]
        self.alphas = scheduler("epsilon").alphas_cumprod
        self.plain = token_table(tokenizer, [views.text(i, False) for i in range(len(views))])
        self.phrased = token_table(tokenizer, [views.text(i, True) for i in range(len(views))])
        self.empty = token_table(tokenizer, [""])

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        """(noisy, t, tokens, target, weight [B, 1, 1, 1]) on the device."""
        g = seeded(self.settings, self.stage, step)
        item = torch.randint(len(self.latents.mean), (BATCH,), generator=g)
        mean, std = self.latents.mean[item].float(), self.latents.std[item].float()
        clean = mean + std * torch.randn(mean.shape, generator=g)
        noise = torch.randn(mean.shape, generator=g)
        # Stratified over the batch: less variance between steps at no cost.
        u = (torch.arange(BATCH) + torch.rand(BATCH, generator=g)) / BATCH
        noisy, t, target, weight = (self._flow if self.kind == "flow" else self._diffusion)(clean, noise, u)
        view, draw = item % len(self.plain), torch.rand(BATCH, 1, generator=g)
        tokens = torch.where(draw < PHRASE_SHARE * (1 - TEXT_DROPOUT), self.phrased[view], self.plain[view])
        tokens = torch.where(draw > 1 - TEXT_DROPOUT, self.empty, tokens)
        return tuple(x.to(self.settings.device) for x in (noisy, t, tokens, target, weight))

    def _diffusion(self, clean: Tensor, noise: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        """(noisy, t, target, weight) at the share u [B] of SD's schedule, with min-SNR weights."""
        t = (u * 1000).long().clamp(0, 999)
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        snr, is_v = alpha / (1 - alpha), self.kind == "v_prediction"
        weight = snr.clamp(max=SNR_CAP) / (snr + 1 if is_v else snr)
        return noisy, t, alpha.sqrt() * noise - (1 - alpha).sqrt() * clean if is_v else noise, weight

    def _flow(self, clean: Tensor, noise: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        """(noisy, t, target, weight) at sigma = SHIFT u / (1 + (SHIFT - 1) u); t is 1000 sigma."""
        sigma = (SHIFT * u / (1 + (SHIFT - 1) * u)).view(-1, 1, 1, 1)
        noisy = (1 - sigma) * clean + sigma * noise
        return noisy, 1000 * sigma.flatten(), noise - clean, torch.ones_like(sigma)


@torch.no_grad()
def sample(
    model: Denoiser,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    texts: list[str],
    guidance_scale: float,
    generator: torch.Generator,
    kind: str = "epsilon",
    steps: int = 50,
) -> Tensor:
    """Samples [N, 3, 64, 64] in [0, 1], by DDIM or, for a flow, by Euler's method."""
    device = next(model.parameters()).device
    solver = scheduler(kind)
    solver.set_timesteps(steps, device=device)
    tokens = token_table(tokenizer, [""] * len(texts) + texts).to(device)
    states = model.text(input_ids=tokens).last_hidden_state
    x = torch.randn(len(texts), 4, 16, 16, generator=generator).to(device)
    for t in solver.timesteps:
        out = model.unet(torch.cat([x, x]), t, encoder_hidden_states=states, return_dict=False)[0]
        uncond, cond = out.chunk(2)
        x = solver.step(uncond + guidance_scale * (cond - uncond), t, x, return_dict=False)[0]
    return (vae.decode(x / vae.config["scaling_factor"]).sample * 0.5 + 0.5).clamp(0, 1)


def new_denoiser(settings: Settings, tokenizer: CLIPTokenizer) -> Denoiser:
    torch.manual_seed(settings.seed + 1)
    return Denoiser(tokenizer).to(settings.device)


@dataclass
class Stage:
    """``unet`` trains UNet and text encoder; ``unet_v`` starts from both and freezes the text encoder, and so
    does ``unet_flow`` from ``unet_v``."""

    name: str
    steps: int
    peak_rate: float
    start_from: dict[str, Tensor] | None = None


@dataclass
class Training:
    """The state of a stage, as in its checkpoint."""

    model: Denoiser
    optimizer: torch.optim.Optimizer
    average: Average
    step: int

    def save(self, path: Path) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_atomic({**state, "average": self.average.shadow, "step": self.step}, path)

    def averaged(self, settings: Settings, tokenizer: CLIPTokenizer) -> Denoiser:
        """A copy with the averaged weights, for sampling."""
        copy = new_denoiser(settings, tokenizer).eval()
        copy.load_state_dict(self.average.shadow)
        return copy


def _resume(settings: Settings, tokenizer: CLIPTokenizer, stage: Stage) -> Training:
    """A new training state, or the last stored one."""
    model = new_denoiser(settings, tokenizer).train()
    if stage.start_from is not None:
        model.load_state_dict(stage.start_from)
        model.text.requires_grad_(False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable, stage.peak_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    training = Training(model, optimizer, Average(model, 0.9985), 0)
    if (stored := load_if_there(settings.work / f"{stage.name}.pt")) is not None:
        model.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        training.average.shadow, training.step = stored["average"], stored["step"]
    return training


def _advance(training: Training, batch: tuple[Tensor, ...], settings: Settings) -> tuple[float, float]:
    """One optimiser step; returns the weighted loss and the plain MSE."""
    noisy, t, tokens, target, weight = share(batch, settings)
    squared = (training.model(noisy, t, tokens) - target).square()
    loss = (weight * squared).mean()
    training.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    trainable = [p for p in training.model.parameters() if p.requires_grad]
    average_gradients(trainable, settings)
    torch.nn.utils.clip_grad_norm_(trainable, 1.0, foreach=True)
    training.optimizer.step()
    training.average.update(training.model, training.step)
    training.step += 1
    return loss.item(), squared.mean().item()


def train_denoiser(
    settings: Settings,
    views: TrainingViews,
    latents: Latents,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    stage: Stage,
    interim: Callable[[Denoiser], None],
) -> Denoiser:
    """Train a stage and return the averaged weights; ``interim`` receives them from time to time."""
    path, training = settings.work / f"{stage.name}.pt", _resume(settings, tokenizer, stage)
    if training.step >= stage.steps:
        return training.averaged(settings, tokenizer)
    if settings.compile:
        training.model.unet.compile()
    batches = Batches(settings, views, latents, tokenizer, stage.name)
    log, start = Log(settings, stage.name), training.step
    began = saved = exported = time.time()
    log(event="start", step=start, steps=stage.steps)
    sums = [0.0, 0.0]
    while training.step < stage.steps:
        rate = learning_rate(training.step, stage.steps, stage.peak_rate, 200, 0.55)
        set_learning_rate(training.optimizer, rate)
        losses = _advance(training, batches(training.step), settings)
        sums = [a + b for a, b in zip(sums, losses, strict=True)]
        step, now = training.step, time.time()
        if step % 100 == 0:
            pace = (now - began) / (step - start)
            left = (stage.steps - step) * pace / 60
            log(step=step, loss=sums[0] / 100, mse=sums[1] / 100, seconds_per_step=pace, minutes_left=left)
            sums = [0.0, 0.0]
        last = step == stage.steps
        if settings.rank == 0 and (last or now - saved > settings.checkpoint_seconds):
            training.save(path)
            saved = now
        if settings.rank == 0 and (last or now - exported > settings.interim_export_seconds):
            averaged = training.averaged(settings, tokenizer)
            _preview(settings, averaged, vae, tokenizer, stage.name, step)
            interim(averaged)
            exported = now
    log(event="done", seconds=time.time() - began)
    return training.averaged(settings, tokenizer)


def _preview(
    settings: Settings, model: Denoiser, vae: AutoencoderKL, tokenizer: CLIPTokenizer, stage: str, step: int
) -> None:
    """Save a grid of samples with fixed captions and noise."""
    generator = seeded(settings, "preview")
    images = sample(model, vae, tokenizer, list(PREVIEW), 5.0, generator, KINDS[stage], 30)
    save_grid(images, 8, settings.work / f"{stage}_{step:06d}.png", 2)
