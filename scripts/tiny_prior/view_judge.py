"""A small network that sees from where an object with a front is shown: it measures the prior's obedience.

It regresses the camera's azimuth, as (cos, sin), and its elevation from one picture, without the caption, and
is trained on true renders. The tiny CLIP is no such judge: it compares whole captions.

At a border between two phrases (45 and 135 degrees of azimuth, 60 degrees of elevation) either is right, so a
sample obeys its phrase if the judge sees it within the phrase's sector widened by MARGIN.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet
from transformers import CLIPTokenizer

from scripts.tiny_prior.clip import augment
from scripts.tiny_prior.common import (
    Average,
    Log,
    Settings,
    learning_rate,
    load_if_there,
    save_atomic,
    save_grid,
    seeded,
    set_learning_rate,
)  # fmt: skip
from scripts.tiny_prior.data import TrainingViews, random_backgrounds, training_cameras
from scripts.tiny_prior.unet import Denoiser, sample
from trace_bench.toyworld import VIEW_PHRASES, scene_from_prompt, training_prompts, view_phrase
from trace_bench.toyworld.captions import parse

BATCH, PEAK_RATE = 64, 1.5e-3
MARGIN = (10.0, 5.0)  # degrees of azimuth and of elevation
TRUE_VIEWS = 2048
SAMPLES = 256  # per phrase


def new_judge(settings: Settings) -> ResNet:
    torch.manual_seed(settings.seed + 3)
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).to(settings.device)


def angles(output: Tensor) -> tuple[Tensor, Tensor]:
    """(azimuth [N] in (-180, 180], elevation [N]), in degrees, from outputs [N, 3]."""
    return torch.rad2deg(torch.atan2(output[:, 1], output[:, 0])), 60.0 * output[:, 2]


def fronted(views: TrainingViews) -> Tensor:
    """Indices of the views of objects with a front."""
    has_front = np.array([scene_from_prompt(prompt).has_front for prompt in views.prompts])
    return torch.from_numpy(np.flatnonzero(has_front[views.caption]))


def train_judge(settings: Settings, views: TrainingViews) -> ResNet:
    """Train or load the judge; returns the averaged weights in evaluation mode."""
    path, model = settings.work / "view_judge.pt", new_judge(settings).train()
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_RATE, weight_decay=0.02, fused=True)
    average, start = Average(model, 0.99), 0
    if (stored := load_if_there(path)) is not None:
        model.load_state_dict(stored["model"])
        average.shadow, start = stored["average"], stored["step"]
        optimizer.load_state_dict(stored["optimizer"])
    own, azimuth = fronted(views), torch.deg2rad(torch.from_numpy(views.azimuth))
    elevation = torch.from_numpy(views.elevation)
    target = torch.stack([azimuth.cos(), azimuth.sin(), elevation / 60.0], 1).float()
    log, began, saved = Log(settings, "view_judge"), time.time(), time.time()
    for step in range(start, settings.judge_steps):
        g = seeded(settings, "view_judge", step)
        item = own[torch.randint(len(own), (BATCH,), generator=g)]
        images = augment(views.composite(item, random_backgrounds(BATCH, g)), g) * 2 - 1
        loss = F.mse_loss(model(images.to(settings.device)), target[item].to(settings.device))
        set_learning_rate(optimizer, learning_rate(step, settings.judge_steps, PEAK_RATE, 50, 0.3))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update(model, step)
        last = step == settings.judge_steps - 1
        if (step + 1) % 100 == 0 or last:
            pace = (time.time() - began) / (step + 1 - start)
            log(step=step + 1, loss=loss.item(), seconds_per_step=pace)
        if last or time.time() - saved > settings.checkpoint_seconds:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_atomic({**state, "average": average.shadow, "step": step + 1}, path)
            saved = time.time()
    model.load_state_dict(average.shadow)
    return model.eval()


@torch.no_grad()
def seen(judge: ResNet, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(azimuth [N], elevation [N]) in degrees that the judge sees in images [N, 3, 64, 64] in [0, 1]."""
    device = next(judge.parameters()).device
    output = torch.cat([judge(part.to(device) * 2 - 1) for part in images.split(128)])
    azimuth, elevation = angles(output.cpu())
    return azimuth.numpy(), elevation.numpy()


def obeys(phrase: str, azimuth: float, elevation: float) -> bool:
    """Whether a view lies in the sector of its phrase, widened by MARGIN."""
    wide, high = MARGIN
    if phrase == "overhead view":
        return elevation > 60.0 - high
    near = {"front view": (0.0,), "side view": (90.0, -90.0), "back view": (180.0,)}[phrase]
    off = min(abs((azimuth - centre + 180.0) % 360.0 - 180.0) for centre in near)
    return off < 45.0 + wide and elevation < 60.0 + high


def _away_from_borders(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Mask [N] of the views that lie in one widened sector only."""
    within = [
        [obeys(phrase, a, e) for phrase in VIEW_PHRASES] for a, e in zip(azimuth, elevation, strict=True)
    ]
    return np.array(within).sum(1) == 1


def evaluate_judge(settings: Settings, judge: ResNet) -> dict[str, Any]:
    """The judge on new true renders: share of right phrases away from the borders, and median errors."""
    g = seeded(settings, "evaluate_view_judge")
    pool = front_prompts()
    cameras = training_cameras(TRUE_VIEWS, g)
    backgrounds = random_backgrounds(TRUE_VIEWS, g)
    images = torch.stack([
        scene_from_prompt(pool[i % len(pool)]).render(cameras[i : i + 1], backgrounds[i]).rgb[0]
        for i in range(TRUE_VIEWS)
    ]).permute(0, 3, 1, 2)  # fmt: skip
    true_azimuth, true_elevation = cameras.azimuth_deg.numpy(), cameras.elevation_deg.numpy()
    azimuth, elevation = seen(judge, images)
    right = np.array([
        view_phrase(a, e) == view_phrase(b, f)
        for a, e, b, f in zip(azimuth, elevation, true_azimuth, true_elevation, strict=True)
    ])  # fmt: skip
    clear = _away_from_borders(true_azimuth, true_elevation)
    low = true_elevation < 60.0
    off = np.abs((azimuth - true_azimuth + 180.0) % 360.0 - 180.0)
    by_name = {
        name: float(right[clear & own].mean())
        for name in sorted({parse(p)[0].name for p in pool})
        if (own := np.array([parse(pool[i % len(pool)])[0].name == name for i in range(TRUE_VIEWS)])).any()
    }
    return {
        "renders": TRUE_VIEWS, "clear": int(clear.sum()), "right": float(right[clear].mean()),
        "right_everywhere": float(right.mean()), "azimuth_error": float(np.median(off[low])),
        "elevation_error": float(np.median(np.abs(elevation - true_elevation))), "by_name": by_name,
    }  # fmt: skip


def front_prompts() -> list[str]:
    """Training captions of objects with a front, in rounds in which each object comes once."""
    by_name: dict[str, list[str]] = {}
    for prompt in training_prompts():
        if scene_from_prompt(prompt).has_front:
            by_name.setdefault(parse(prompt)[0].name, []).append(prompt)
    rounds = max(len(prompts) for prompts in by_name.values())
    return [prompts[i % len(prompts)] for i in range(rounds) for prompts in by_name.values()]


def obedience(
    settings: Settings, judge: ResNet, denoiser: Denoiser, vae: AutoencoderKL, tokenizer: CLIPTokenizer,
    kind: str, n: int = SAMPLES,
) -> dict[str, float]:  # fmt: skip
    """Share of samples (DDIM, 50 steps, guidance 5) that the judge sees in the view asked for, by phrase."""
    pool, result, rows = front_prompts(), {}, []
    names = len({parse(p)[0].name for p in pool})
    g = seeded(settings, "obedience", kind)
    for phrase in VIEW_PHRASES:
        texts = [f"{pool[i % len(pool)]}, {phrase}" for i in range(n)]
        images = torch.cat([
            sample(denoiser, vae, tokenizer, texts[i : i + 64], 5.0, g, kind).cpu() for i in range(0, n, 64)
        ])  # fmt: skip
        views = zip(*seen(judge, images), strict=True)
        result[phrase.split()[0]] = float(np.mean([obeys(phrase, a, e) for a, e in views]))
        rows.append(images[:names])
    save_grid(torch.cat(rows), names, settings.work / f"samples_views_{kind}.png", 1)
    return result
