"""Shared by all stages: settings, logs, seeds, atomic checkpoints, averaged weights, picture grids."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn


@dataclass
class Settings:
    """Everything besides the code that determines the result, and the output folders."""

    work: Path
    export: Path
    seed: int = 0
    device: str = "cpu"
    views: int = 60_000
    vae_steps: int = 8_000
    decoder_steps: int = 1_500
    unet_steps: int = 16_000
    unet_v_steps: int = 2_000
    unet_flow_steps: int = 3_000
    clip_steps: int = 1_800
    judge_steps: int = 1_500
    checkpoint_seconds: float = 90.0
    interim_export_seconds: float = 600.0
    compile: bool = False
    workers: int = 1
    rank: int = 0


def seeded(settings: Settings, *names: object) -> torch.Generator:
    """A generator that depends only on seed and names, so that a resumed stage repeats the same draws."""
    text = "/".join(map(str, (settings.seed, *names)))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))


class Log:
    """Appends each entry as text and as JSON to <work>/<stage>.{log,jsonl}."""

    def __init__(self, settings: Settings, stage: str) -> None:
        settings.work.mkdir(parents=True, exist_ok=True)
        self.stage, self._path, self._quiet = stage, settings.work / stage, settings.rank > 0

    def __call__(self, **values: Any) -> None:
        if self._quiet:
            return
        shown = "  ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        line = f"{time.strftime('%H:%M:%S')} [{self.stage}] {shown}"
        print(line, flush=True)
        with Path(f"{self._path}.log").open("a") as f:
            f.write(line + "\n")
        with Path(f"{self._path}.jsonl").open("a") as f:
            f.write(json.dumps({"time": time.time(), **values}) + "\n")


def save_atomic(value: Any, path: Path) -> None:
    """Atomic torch.save."""
    temporary = path.with_name(path.name + ".part")
    torch.save(value, temporary)
    temporary.replace(path)


def load_if_there(path: Path) -> Any | None:
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


class Average:
    """Exponential moving average of a module's parameters; the window grows during the first steps."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        state = module.state_dict()
        floats = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.shadow[k] for k in floats], [state[k] for k in floats], 1.0 - decay)
        for k in state.keys() - set(floats):
            self.shadow[k].copy_(state[k])


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay_from: float) -> float:
    """Linear warm-up, a plateau, and linear decay to zero from the fraction ``decay_from`` of the run."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * min(1.0, (steps - step) / max(steps * (1.0 - decay_from), 1.0))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


def save_grid(images: Tensor, columns: int, path: Path, scale: int = 1) -> None:
    """Save images [N, 3, H, W] in [0, 1] as one PNG, row by row."""
    pixels = (images.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    while len(pixels) % columns:
        pixels = np.concatenate([pixels, np.full_like(pixels[:1], 255)])
    pixels = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = [np.concatenate(list(pixels[i : i + columns]), axis=1) for i in range(0, len(pixels), columns)]
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST).save(
        path, optimize=True
    )


def share(batch: tuple[Tensor, ...], settings: Settings) -> tuple[Tensor, ...]:
    """This worker's part of a batch."""
    return tuple(x[settings.rank :: settings.workers] for x in batch)


def average_gradients(parameters: list[nn.Parameter], settings: Settings) -> None:
    """Average the gradients over the workers, once per step. On a busy machine this is cheaper than threads,
    which synchronise hundreds of times per step and wait for the scheduler each time."""
    if settings.workers == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= settings.workers
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
