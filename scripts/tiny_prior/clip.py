"""The tiny CLIP in open_clip's format: a small ResNet and text tower, trained on augmented true renders.

It scores renders of Gaussian splats, so it is trained on blurred, noisy, shifted and blotched pictures. The
loss contrasts each picture with the other captions of the batch, with captions that differ in one word, and
with the three other view phrases of its own caption.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from scripts.tiny_prior.common import (
    Average,
    Log,
    Settings,
    learning_rate,
    load_if_there,
    save_atomic,
    seeded,
    set_learning_rate,
)  # fmt: skip
from scripts.tiny_prior.data import TrainingViews, random_backgrounds
from scripts.tiny_prior.tokenizer import MAX_LENGTH
from scripts.tiny_prior.unet import token_table
from trace_bench.toyworld import VIEW_PHRASES
from trace_bench.toyworld.captions import parse

BATCH, HARD, PHRASED = 64, 2, 24  # pictures per step; near captions per picture; pictures with view loss
PEAK_RATE = 1.5e-3
PHRASE_WEIGHT = 0.25


def model_config(vocab_size: int) -> dict[str, Any]:
    """open_clip's ``model_cfg``."""
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64}
    text = {"context_length": MAX_LENGTH, "vocab_size": vocab_size, "width": 96, "heads": 4, "layers": 2,
            "hf_tokenizer_name": "tiny_clip"}  # fmt: skip
    return {"embed_dim": 96, "vision_cfg": vision, "text_cfg": text}


def new_clip(settings: Settings, tokenizer: CLIPTokenizer) -> open_clip.CLIP:
    torch.manual_seed(settings.seed + 2)
    config = model_config(len(tokenizer))
    vision = {**config["vision_cfg"], "layers": tuple(config["vision_cfg"]["layers"])}
    return open_clip.CLIP(config["embed_dim"], vision, config["text_cfg"]).to(settings.device)


def near_captions(prompts: list[str]) -> list[np.ndarray]:
    """Per prompt, the indices of prompts that differ in one attribute or have swapped colours."""
    parsed = [parse(p)[0] for p in prompts]
    rows = np.array([(c.name, c.color or "", c.base or "", c.base_color or "") for c in parsed])
    swapped = rows[:, [0, 3, 2, 1]]
    near = []
    for i, row in enumerate(rows):
        same = (rows == row).sum(1)
        hit = (same == 3) | ((swapped == row).all(1) & (same < 4))
        near.append(np.flatnonzero(hit) if hit.any() else np.delete(np.arange(len(rows)), i))
    return near


def augment(images: Tensor, g: torch.Generator) -> Tensor:
    """Blur, noise, shift, zoom, blotches and colour change, each with a random strength per picture."""
    n = len(images)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=g)

    zoom, shift = draw(0.92, 1.15, 1), draw(-0.1, 0.1, 2)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom[:, 0], zoom[:, 0], shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    side = draw(0.0, 0.45, 1) * (torch.rand(n, 1, generator=g) < 0.6)
    row = torch.cat([side, 1 - side, side], 1) / (1 + side)
    kernel = (row[:, :, None] * row[:, None, :])[:, None]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate").permute(1, 0, 2, 3)
    images = F.conv2d(padded, kernel, groups=n).permute(1, 0, 2, 3)
    gray = images.mean(1, keepdim=True)
    images = (gray + draw(0.75, 1.35, 1, 1, 1) * (images - gray)) * draw(0.88, 1.10, 1, 1, 1)
    blotches = F.interpolate(torch.randn(n, 3, 9, 9, generator=g), size=images.shape[-2:], mode="bicubic")
    images = images + draw(0.0, 0.09, 1, 1, 1) * blotches
    return (images + draw(0.0, 0.06, 1, 1, 1) * torch.randn(images.shape, generator=g)).clamp(0, 1)


class Batches:
    """Pictures and texts of step k, determined by the seed and k."""

    def __init__(self, settings: Settings, views: TrainingViews, tokenizer: CLIPTokenizer) -> None:
        self.settings, self.views = settings, views
        self.near = near_captions(views.prompts)
        # tables[p]: all training prompts with view phrase p; the last table has none.
        endings = [f", {p}" for p in VIEW_PHRASES] + [""]
        self.tables = torch.stack([token_table(tokenizer, [c + e for c in views.prompts]) for e in endings])
        self.phrase = torch.tensor([VIEW_PHRASES.index(p) for p in views.phrase])
        self.caption = torch.from_numpy(views.caption).long()

    def __call__(self, step: int) -> dict[str, Tensor]:
        g = seeded(self.settings, "clip", step)
        drawn = torch.randint(len(self.views), (4 * BATCH,), generator=g)
        _, first = np.unique(self.caption[drawn].numpy(), return_index=True)
        item = drawn[torch.from_numpy(np.sort(first)[:BATCH])]
        caption, n = self.caption[item], len(item)
        picks = torch.rand(n, HARD, generator=g)
        hard = torch.tensor([[self.near[c][int(u * len(self.near[c]))] for u in row]
                             for c, row in zip(caption.tolist(), picks.tolist(), strict=True)])  # fmt: skip
        ending = torch.where(
            torch.rand(n, generator=g) < 0.45, self.phrase[item], torch.tensor(len(VIEW_PHRASES))
        )
        texts = torch.cat([self.tables[ending, caption], self.tables[ending[:, None], hard].flatten(0, 1)])
        images = augment(self.views.composite(item, random_backgrounds(n, g)), g)
        batch = {
            "images": images * 2 - 1, "texts": texts, "caption": torch.cat([caption, hard.flatten()]),
            "phrased": self.tables[: len(VIEW_PHRASES), caption[:PHRASED]].transpose(0, 1).flatten(0, 1),
            "phrase": self.phrase[item[:PHRASED]],
        }  # fmt: skip
        return {k: v.to(self.settings.device) for k, v in batch.items()}


def clip_loss(model: open_clip.CLIP, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, top-1 accuracy among the batch's captions and near captions, view phrase accuracy)."""
    image = model.encode_image(batch["images"], normalize=True)
    text = model.encode_text(torch.cat([batch["texts"], batch["phrased"]]), normalize=True)
    n, m, scale = len(image), len(batch["texts"]), model.logit_scale.exp()
    logits = scale * image @ text[:m].T
    own = torch.arange(n, device=image.device)
    twin = (batch["caption"][:n, None] == batch["caption"][None]) & (
        own[:, None] != torch.arange(m, device=image.device)
    )
    logits = logits.masked_fill(twin, -1e4)
    loss = 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, :n].T, own))
    phrased = text[m:].view(-1, len(VIEW_PHRASES), text.shape[-1])
    ranking = scale * torch.einsum("nd,npd->np", image[: len(phrased)], phrased)
    loss = loss + PHRASE_WEIGHT * F.cross_entropy(ranking, batch["phrase"])
    return (
        loss,
        (logits.argmax(1) == own).float().mean(),
        (ranking.argmax(1) == batch["phrase"]).float().mean(),
    )


def train_clip(settings: Settings, views: TrainingViews, tokenizer: CLIPTokenizer) -> open_clip.CLIP:
    """Train or load the tiny CLIP; returns the averaged weights in evaluation mode."""
    path = settings.work / "clip.pt"
    model = new_clip(settings, tokenizer).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    average, start = Average(model, 0.995), 0
    if (stored := load_if_there(path)) is not None:
        model.load_state_dict(stored["model"])
        average.shadow, start = stored["average"], stored["step"]
        optimizer.load_state_dict(stored["optimizer"])
    if start < settings.clip_steps:
        batches, log = Batches(settings, views, tokenizer), Log(settings, "clip")
        log(event="start", step=start, parameters=sum(p.numel() for p in model.parameters()))
        began, saved = time.time(), time.time()
    for step in range(start, settings.clip_steps):
        set_learning_rate(optimizer, learning_rate(step, settings.clip_steps, PEAK_RATE, 100, 0.3))
        loss, accuracy, views_right = clip_loss(model, batches(step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, step)
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, float(np.log(60.0)))
        last = step == settings.clip_steps - 1
        if (step + 1) % 50 == 0 or last:
            rate = (time.time() - began) / (step + 1 - start)
            log(
                step=step + 1,
                loss=loss.item(),
                top1=accuracy.item(),
                view=views_right.item(),
                seconds_per_step=rate,
            )
        if last or time.time() - saved > settings.checkpoint_seconds:
            state = {
                "model": model.state_dict(),
                "average": average.shadow,
                "optimizer": optimizer.state_dict(),
            }
            save_atomic({**state, "step": step + 1}, path)
            saved = time.time()
    model.load_state_dict(average.shadow)
    return model.eval()


def write_clip(folder: Path, model: open_clip.CLIP, tokenizer: CLIPTokenizer) -> None:
    """Write config with preprocessing and fp16 safetensors in open_clip's format, without the tokenizer."""
    config = {
        "model_cfg": model_config(len(tokenizer)),
        "preprocess_cfg": {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous().cpu()
        for k, v in model.state_dict().items()
    }
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
