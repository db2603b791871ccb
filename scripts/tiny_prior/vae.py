"""The autoencoder: 64 x 64 x 3 to 16 x 16 x 4 and back, with a mild KL so that its latents are smooth."""

from __future__ import annotations

import math
import time

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from scripts.tiny_prior.common import (
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
from scripts.tiny_prior.data import TrainingViews, random_backgrounds

KL_WEIGHT = 2e-3  # per latent element, against a loss per pixel value
CROP, CROPS, FULL = (
    32,
    32,
    8,
)  # first crops of 32 px in batches of 32, later whole pictures in batches of 8
WHOLE_FROM = 0.65  # GroupNorm statistics differ in crops, so the last third uses whole pictures
PEAK_RATE = 2.5e-3


def new_vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=64, layers_per_block=1,
        norm_num_groups=8,
        block_out_channels=(16, 32, 32), mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip


def _batch(views: TrainingViews, step: int, settings: Settings, whole: bool) -> Tensor:
    generator = seeded(settings, "vae", step)
    n = FULL if whole else CROPS
    index = torch.randint(len(views), (n,), generator=generator)
    images = views.composite(index, random_backgrounds(n, generator)) * 2.0 - 1.0
    if whole:
        return images
    # The sum of two uniform draws favours the centre, where the object is.
    corner = (torch.rand(n, 2, 2, generator=generator).sum(-1) * (64 - CROP) / 2).long()
    return torch.stack(
        [im[:, y : y + CROP, x : x + CROP] for im, (y, x) in zip(images, corner.tolist(), strict=True)]
    )


def _loss(vae: AutoencoderKL, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(loss, MSE, KL per element, mean posterior std)."""
    posterior = vae.encode(images).latent_dist
    decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    picture, squared = _picture_loss(decoded, images)
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1.0 - posterior.logvar).mean()
    return picture + KL_WEIGHT * kl, squared, kl, posterior.std.mean()


def _picture_loss(decoded: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """(L1 + MSE + half the L1 of the edges, MSE)."""
    squared = F.mse_loss(decoded, images)
    edges = F.l1_loss(decoded.diff(dim=2), images.diff(dim=2)) + F.l1_loss(
        decoded.diff(dim=3), images.diff(dim=3)
    )
    return F.l1_loss(decoded, images) + squared + 0.5 * edges, squared


def train_vae(settings: Settings, views: TrainingViews) -> AutoencoderKL:
    """Train or load the autoencoder; its scaling factor gives latents with standard deviation 1."""
    path = settings.work / "vae.pt"
    torch.manual_seed(settings.seed)
    vae = new_vae().to(settings.device)
    optimizer = torch.optim.AdamW(vae.parameters(), PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    start, stored = 0, load_if_there(path)
    if stored is not None:
        vae.load_state_dict(stored["model"])
        start = stored["step"]
        optimizer.load_state_dict(stored["optimizer"])
        if "scaling_factor" in stored:
            vae.register_to_config(scaling_factor=stored["scaling_factor"])
            return vae.eval()
    log, began, saved = Log(settings, "vae"), time.time(), time.time()
    for step in range(start, settings.vae_steps):
        images = _batch(views, step, settings, step >= WHOLE_FROM * settings.vae_steps).to(settings.device)
        noise = torch.randn(
            len(images), 4, *(s // 4 for s in images.shape[2:]), generator=seeded(settings, "vae_z", step)
        )
        set_learning_rate(optimizer, learning_rate(step, settings.vae_steps, PEAK_RATE, 100, 0.3))
        loss, squared, kl, std = _loss(vae, *share((images, noise.to(settings.device)), settings))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(list(vae.parameters()), settings)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == settings.vae_steps - 1:
            rate = (time.time() - began) / (step - start + 1)
            log(
                step=step,
                loss=loss.item(),
                mse=squared.item(),
                kl=kl.item(),
                std=std.item(),
                seconds_per_step=rate,
            )
        if settings.rank == 0 and time.time() - saved > settings.checkpoint_seconds:
            save_atomic(
                {"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, path
            )
            saved = time.time()
    if settings.rank > 0:
        return vae.eval()
    factor, squared = _measure(vae.eval(), views, settings)
    vae.register_to_config(scaling_factor=factor)
    save_atomic(
        {"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": settings.vae_steps,
         "scaling_factor": factor, "mse": squared}, path,
    )  # fmt: skip
    log(
        event="done",
        mse=squared,
        psnr=10 * math.log10(4.0 / squared),
        scaling_factor=factor,
        seconds=time.time() - began,
    )
    return vae


def refine_decoder(settings: Settings, vae: AutoencoderKL, views: TrainingViews) -> AutoencoderKL:
    """Fine-tune the decoder with a frozen encoder: sharper pictures, unchanged latents for the UNets."""
    path, factor = settings.work / "vae_decoder.pt", vae.config["scaling_factor"]
    parts = torch.nn.ModuleList([vae.decoder, vae.post_quant_conv])
    vae.requires_grad_(False)
    parts.requires_grad_(True)
    optimizer = torch.optim.AdamW(parts.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    start = 0
    if (stored := load_if_there(path)) is not None:
        parts.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        start = stored["step"]
    log, began, saved = Log(settings, "vae_decoder"), time.time(), time.time()
    for step in range(start, settings.decoder_steps):
        images = _batch(views, settings.vae_steps + step, settings, whole=True)
        noise = torch.randn(len(images), 4, 16, 16, generator=seeded(settings, "decoder_z", step))
        images, noise = share((images.to(settings.device), noise.to(settings.device)), settings)
        set_learning_rate(optimizer, learning_rate(step, settings.decoder_steps, 1e-3, 50, 0.2))
        with torch.no_grad():
            posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        loss, squared = _picture_loss(decoded, images)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(list(parts.parameters()), settings)
        optimizer.step()
        if (step + 1) % 100 == 0:
            rate = (time.time() - began) / (step - start + 1)
            log(step=step + 1, loss=loss.item(), mse=squared.item(), seconds_per_step=rate)
        last = step == settings.decoder_steps - 1
        if settings.rank == 0 and (last or time.time() - saved > settings.checkpoint_seconds):
            state = {"model": parts.state_dict(), "optimizer": optimizer.state_dict()}
            save_atomic({**state, "step": step + 1}, path)
            saved = time.time()
    if settings.rank == 0 and start < settings.decoder_steps:
        squared = _measure(vae.eval(), views, settings)[1]
        log(event="done", mse=squared, psnr=10 * math.log10(4.0 / squared), scaling_factor=factor)
    return vae.eval()


@torch.no_grad()
def _measure(vae: AutoencoderKL, views: TrainingViews, settings: Settings) -> tuple[float, float]:
    """(1 / std of the latents, MSE of whole pictures in [-1, 1]) over 512 views, and a grid of pairs."""
    generator = seeded(settings, "vae_measure")
    index = torch.randint(len(views), (512,), generator=generator)
    images = (views.composite(index, random_backgrounds(512, generator)) * 2.0 - 1.0).to(settings.device)
    latents = vae.encode(images).latent_dist.sample(generator)
    decoded = vae.decode(latents).sample
    pairs = torch.stack([images[:32], decoded[:32]], dim=1).flatten(0, 1)
    save_grid(pairs * 0.5 + 0.5, 16, settings.work / "vae.png", 2)
    return 1.0 / latents.std().item(), F.mse_loss(decoded, images).item()


@torch.no_grad()
def encode_views(
    settings: Settings, vae: AutoencoderKL, views: TrainingViews, copies: int = 1
) -> tuple[Tensor, Tensor]:
    """Scaled posterior (mean, std) [copies * N, 4, 16, 16] float16 of all views on random backgrounds."""
    path = settings.work / "latents.pt"
    stored = load_if_there(path)
    if stored is not None:
        return stored["mean"], stored["std"]
    log, generator = Log(settings, "latents"), seeded(settings, "latents")
    log(event="encoding", items=copies * len(views))
    means, stds, factor = [], [], vae.config["scaling_factor"]
    for index in torch.arange(len(views)).repeat(copies).split(100):
        images = views.composite(index, random_backgrounds(len(index), generator)) * 2.0 - 1.0
        posterior = vae.encode(images.to(settings.device)).latent_dist
        means.append((posterior.mean * factor).half().cpu())
        stds.append((posterior.std * factor).half().cpu())
    mean, std = torch.cat(means), torch.cat(stds)
    save_atomic({"mean": mean, "std": std}, path)
    log(event="done", latent_std=mean.float().std().item(), posterior_std=std.float().mean().item())
    return mean, std
