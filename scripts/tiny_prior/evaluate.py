"""Evaluates the tiny models: numbers for the model cards, and sample grids."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from scripts.tiny_prior.common import Log, Settings, save_grid, seeded
from scripts.tiny_prior.data import random_backgrounds, training_cameras
from scripts.tiny_prior.unet import Denoiser, sample, token_table
from trace_bench.toyworld import (
    VIEW_PHRASES,
    all_captions,
    held_out_prompts,
    scene_from_prompt,
    training_prompts,
    view_phrase,
)  # fmt: skip
from trace_bench.toyworld.captions import parse

CANDIDATES = 32  # captions to rank, including the picture's own
SAMPLES = 256
KINDS = ("solid", "object", "composition")


def draw_prompts(pool: list[str], n: int, g: torch.Generator) -> list[str]:
    """n prompts, equally many of each kind in the pool, repeating only if necessary."""
    groups = [[p for p in pool if parse(p)[0].kind == kind] for kind in KINDS]
    groups = [group for group in groups if group]
    picked: list[str] = []
    for k, group in enumerate(groups):
        share = n // len(groups) + (k < n % len(groups))
        order = torch.cat([torch.randperm(len(group), generator=g) for _ in range(share // len(group) + 1)])
        picked += [group[i] for i in order[:share].tolist()]
    return picked


@torch.no_grad()
def embed_images(model: open_clip.CLIP, images: Tensor) -> Tensor:
    return torch.cat([model.encode_image(part * 2 - 1, normalize=True) for part in images.split(128)])


@torch.no_grad()
def embed_texts(model: open_clip.CLIP, tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    return torch.cat(
        [model.encode_text(part, normalize=True) for part in token_table(tokenizer, texts).split(256)]
    )


def ranked_first(
    model: open_clip.CLIP, tokenizer: CLIPTokenizer, images: Tensor, prompts: list[str], g: torch.Generator
) -> dict[str, Any]:
    """Share of pictures whose caption ranks first among 32 and among all captions; also per kind."""
    everything = [c.text for c in all_captions()]
    place = {text: i for i, text in enumerate(everything)}
    scores = embed_images(model, images) @ embed_texts(model, tokenizer, everything).T
    own = torch.tensor([place[p] for p in prompts])
    best = []
    for row, i in zip(scores, own.tolist(), strict=True):
        others = torch.randperm(len(everything), generator=g)
        others = others[others != i][: CANDIDATES - 1]
        best.append(bool(row[i] > row[others].max()))
    kinds = np.array([parse(p)[0].kind for p in prompts])
    result = {"among_32": float(np.mean(best)), "among_all": (scores.argmax(1) == own).float().mean().item()}
    result |= {kind: float(np.mean(np.array(best)[kinds == kind])) for kind in KINDS if (kinds == kind).any()}
    missed = [p for p, hit in zip(prompts, best, strict=True) if not hit]
    return {**result, "captions": len(everything), "pictures": len(prompts), "missed": missed}


def true_views(prompts: list[str], g: torch.Generator) -> tuple[Tensor, list[str]]:
    """One true render [N, 3, 64, 64] of each prompt from a training camera, and its view phrase."""
    cameras, backgrounds = training_cameras(len(prompts), g), random_backgrounds(len(prompts), g)
    views = [
        scene_from_prompt(p).render(cameras[i : i + 1], backgrounds[i]).rgb[0] for i, p in enumerate(prompts)
    ]  # fmt: skip
    angles = zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)
    return torch.stack(views).permute(0, 3, 1, 2), [view_phrase(a, e) for a, e in angles]


def views_right(
    model: open_clip.CLIP, tokenizer: CLIPTokenizer, images: Tensor, prompts: list[str], phrases: list[str]
) -> float:
    """Share of pictures whose own view phrase scores highest among the four (chance is 0.25)."""
    texts = embed_texts(model, tokenizer, [f"{p}, {v}" for p in prompts for v in VIEW_PHRASES])
    texts = texts.view(len(prompts), len(VIEW_PHRASES), -1)
    best = torch.einsum("nd,npd->np", embed_images(model, images), texts).argmax(1)
    return float(np.mean([VIEW_PHRASES[i] == p for i, p in zip(best.tolist(), phrases, strict=True)]))


def degrade(images: Tensor, g: torch.Generator) -> Tensor:
    """Imitates splat renders: down to half the resolution and back, plus a little noise."""
    small = F.interpolate(images, scale_factor=0.5, mode="area")
    soft = F.interpolate(small, scale_factor=2.0, mode="bilinear")
    return (soft + 0.03 * torch.randn(images.shape, generator=g)).clamp(0, 1)


def evaluate_clip(settings: Settings, model: open_clip.CLIP, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Evaluate the judge on new true renders."""
    result: dict[str, Any] = {}
    for name, pool in (("held_in", training_prompts()), ("held_out", held_out_prompts())):
        g = seeded(settings, "evaluate_clip", name)
        prompts = draw_prompts(pool, SAMPLES, g)
        images, phrases = true_views(prompts, g)
        result[name] = ranked_first(model, tokenizer, images, prompts, g)
        result[name + "_degraded"] = ranked_first(model, tokenizer, degrade(images, g), prompts, g)
        result[name]["view"] = views_right(model, tokenizer, images, prompts, phrases)
    g = seeded(settings, "evaluate_clip_views")
    prompts = [p for p in training_prompts() if scene_from_prompt(p).has_front] * 4
    images, phrases = true_views(prompts, g)
    result["view_of_objects_with_a_front"] = views_right(model, tokenizer, images, prompts, phrases)
    return result


def evaluate_prior(
    settings: Settings,
    eps: Denoiser,
    v: Denoiser,
    vae: AutoencoderKL,
    model: open_clip.CLIP,
    tokenizer: CLIPTokenizer,
) -> dict[str, Any]:
    """Judge the prior's samples (DDIM, 50 steps), and draw the grids of the model card."""
    log, result = Log(settings, "evaluate"), {}
    runs = (
        ("held_in", 4.0, "epsilon", SAMPLES), ("held_in", 7.5, "epsilon", SAMPLES),
        ("held_out", 5.0, "epsilon", 128), ("held_in", 5.0, "v_prediction", 96),
    )  # fmt: skip
    for name, scale, kind, n in runs:
        denoiser = eps if kind == "epsilon" else v
        result[f"{name}_{kind}_cfg{scale:g}"] = _judged(
            settings, denoiser, vae, model, tokenizer, log, (name, scale, kind, n)
        )
    return result


def evaluate_flow(
    settings: Settings, flow: Denoiser, vae: AutoencoderKL, model: open_clip.CLIP, tokenizer: CLIPTokenizer
) -> dict[str, Any]:
    """Judge the flow's samples (Euler, 50 steps), as `evaluate_prior` does the v UNet's."""
    run = ("held_in", 5.0, "flow", 96)
    log = Log(settings, "evaluate")
    return {"held_in_flow_cfg5": _judged(settings, flow, vae, model, tokenizer, log, run)}


def _judged(
    settings: Settings,
    denoiser: Denoiser,
    vae: AutoencoderKL,
    model: open_clip.CLIP,
    tokenizer: CLIPTokenizer,
    log: Log,
    run: tuple[str, float, str, int],
) -> dict[str, Any]:
    """Draw samples of a run (captions, guidance, kind, number), save a grid, and rank their captions."""
    name, scale, kind, n = run
    key = f"{name}_{kind}_cfg{scale:g}"
    g, began = seeded(settings, "evaluate", name, scale, kind), time.time()
    prompts = draw_prompts(training_prompts() if name == "held_in" else held_out_prompts(), n, g)
    images = torch.cat([
        sample(denoiser, vae, tokenizer, prompts[i : i + 64], scale, g, kind).cpu() for i in range(0, n, 64)
    ])  # fmt: skip
    found = ranked_first(model, tokenizer, images, prompts, g)
    save_grid(images[np.linspace(0, n - 1, 64).astype(int)], 16, settings.work / f"samples_{key}.png", 1)
    numbers = {k: x for k, x in found.items() if isinstance(x, float)}
    log(run=key, **numbers, seconds=time.time() - began)
    return found


def write_results(settings: Settings, result: dict[str, Any]) -> None:
    (settings.work / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")


def read_results(settings: Settings) -> dict[str, Any]:
    return json.loads((settings.work / "evaluation.json").read_text())
