"""Training pictures: toy scenes from many cameras, stored as RGBA for random backgrounds."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scripts.tiny_prior.common import Log, Settings, seeded
from trace_bench.cameras import CameraRange, Cameras, make_cameras, sample_cameras
from trace_bench.toyworld import scene_from_prompt, training_prompts, view_phrase
from trace_bench.toyworld.captions import parse

RESOLUTION = 64
#: Half of the pictures show objects with a front, because only they teach what a view phrase means.
MIXTURE = {"front": 0.50, "object": 0.10, "solid": 0.12, "composition": 0.28}
OVERHEAD_SHARE = 0.16  # share of views above the usual range, to learn "overhead view"
PHRASE_SHARE = 0.75  # share of captions with a view phrase


@dataclass
class TrainingViews:
    """N captioned views: rgba [N, 4, 64, 64] uint8 (premultiplied), caption indices and camera angles."""

    rgba: Tensor
    caption: np.ndarray  # [N] index into prompts
    azimuth: np.ndarray  # [N] degrees
    elevation: np.ndarray  # [N] degrees
    prompts: list[str]

    def __post_init__(self) -> None:
        angles = zip(self.azimuth.tolist(), self.elevation.tolist(), strict=True)
        self.phrase = [view_phrase(*pair) for pair in angles]  # [N]

    def __len__(self) -> int:
        return len(self.rgba)

    def composite(self, index: Tensor, background: Tensor) -> Tensor:
        """[B, 3, 64, 64] in [0, 1] of views [B] over colours [B, 3]."""
        rgba = self.rgba[index].float() / 255.0
        return rgba[:, :3] + (1.0 - rgba[:, 3:]) * background[:, :, None, None]

    def text(self, i: int, with_phrase: bool) -> str:
        prompt = self.prompts[int(self.caption[i])]
        return f"{prompt}, {self.phrase[i]}" if with_phrase else prompt


class _Draws:
    """Uniform draws for ``sample_cameras`` from one torch generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)


def training_cameras(n: int, generator: torch.Generator) -> Cameras:
    """The toy world's training cameras, a share of them overhead, with shuffled azimuths."""
    cameras = sample_cameras(n, _Draws(generator), CameraRange(), RESOLUTION, RESOLUTION)
    high = torch.rand(n, generator=generator) < OVERHEAD_SHARE
    elevation = torch.where(high, 60.0 + 25.0 * torch.rand(n, generator=generator), cameras.elevation_deg)
    order = torch.randperm(n, generator=generator)
    return make_cameras(
        elevation, cameras.azimuth_deg[order], cameras.distance, cameras.fovy_deg, RESOLUTION, RESOLUTION
    )


def random_backgrounds(n: int, generator: torch.Generator) -> Tensor:
    """[n, 3]: often white, black or grey, otherwise any colour."""
    colors = torch.rand(n, 3, generator=generator)
    gray = torch.rand(n, 1, generator=generator).expand(n, 3)
    kind = torch.rand(n, 1, generator=generator)
    colors = torch.where(kind < 0.40, gray, colors)
    colors = torch.where(kind < 0.25, torch.zeros(()), colors)
    return torch.where(kind < 0.18, torch.ones(()), colors)


def group(prompt: str) -> str:
    """The key of MIXTURE: the kind of caption, or "front" for an object with a front."""
    return "front" if scene_from_prompt(prompt).has_front else parse(prompt)[0].kind


def _draw_captions(prompts: list[str], n: int, generator: torch.Generator) -> np.ndarray:
    """[n] prompt indices distributed as MIXTURE; within a group, every name is as likely."""
    groups, names = np.array([group(p) for p in prompts]), np.array([_name(p) for p in prompts])
    weights = np.zeros(len(prompts))
    for key, share in MIXTURE.items():
        own, counts = np.unique(names[groups == key], return_counts=True)
        for name, count in zip(own, counts, strict=True):
            weights[names == name] = share / len(own) / count
    return torch.multinomial(torch.from_numpy(weights), n, replacement=True, generator=generator).numpy()


def _name(prompt: str) -> str:
    caption = parse(prompt)[0]
    return caption.name if caption.base is None else f"{caption.name} on {caption.base}"


def make_views(settings: Settings) -> TrainingViews:
    """Render the training views; later calls load them."""
    path = settings.work / "views.npz"
    meta = {"seed": settings.seed, "views": settings.views}
    if path.exists():
        with np.load(path) as stored:
            if json.loads(str(stored["meta"])) == meta:
                return TrainingViews(
                    torch.from_numpy(stored["rgba"]), stored["caption"], stored["azimuth"],
                    stored["elevation"], training_prompts(),
                )  # fmt: skip
    log = Log(settings, "data")
    log(event="rendering", views=settings.views)
    prompts = training_prompts()
    generator = seeded(settings, "data")
    caption = _draw_captions(prompts, settings.views, generator)
    cameras = training_cameras(settings.views, generator)
    c2w, focal = cameras.c2w.numpy(), cameras.Ks[:, 1, 1].numpy()
    rgba = np.empty((settings.views, 4, RESOLUTION, RESOLUTION), np.uint8)

    def render(i: int) -> None:
        picture = scene_from_prompt(prompts[caption[i]]).render_arrays(
            c2w[i], focal[i], RESOLUTION, RESOLUTION
        )[0]
        rgba[i] = np.round(picture.transpose(2, 0, 1) * 255.0).clip(0, 255).astype(np.uint8)

    with ThreadPoolExecutor(max(torch.get_num_threads(), 1)) as pool:
        for done, _ in enumerate(pool.map(render, range(settings.views), chunksize=64)):
            if (done + 1) % 8000 == 0:
                log(event="rendered", views=done + 1)
    azimuth, elevation = cameras.azimuth_deg.numpy(), cameras.elevation_deg.numpy()
    temporary = path.with_suffix(".part.npz")
    np.savez(
        temporary, rgba=rgba, caption=caption, azimuth=azimuth, elevation=elevation, meta=json.dumps(meta)
    )
    temporary.replace(path)
    return TrainingViews(torch.from_numpy(rgba), caption, azimuth, elevation, prompts)
