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
MIXTURE = {"solid": 0.22, "object": 0.46, "composition": 0.32}
OVERHEAD_SHARE = 0.14  # share of views above the usual range, to learn "overhead view"
PHRASE_SHARE = 0.55  # share of captions with a view phrase


@dataclass
class TrainingViews:
    """N captioned views: rgba [N, 4, 64, 64] uint8 (premultiplied), caption indices and view phrases."""

    rgba: Tensor
    caption: np.ndarray  # [N] index into prompts
    phrase: list[str]  # [N]
    prompts: list[str]

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
    """The tiny world's training cameras, a share of them overhead, with shuffled azimuths."""
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


def _draw_captions(prompts: list[str], n: int, generator: torch.Generator) -> np.ndarray:
    """[n] prompt indices distributed as MIXTURE; objects with a front weigh 1.5 within their kind."""
    weights = np.zeros(len(prompts))
    kinds = [parse(p)[0].kind for p in prompts]
    for kind, share in MIXTURE.items():
        own = np.array([k == kind for k in kinds])
        own_weights = own * np.array([1.5 if scene_from_prompt(p).has_front else 1.0 for p in prompts])
        weights += share * own_weights / own_weights.sum()
    return torch.multinomial(torch.from_numpy(weights), n, replacement=True, generator=generator).numpy()


def make_views(settings: Settings) -> TrainingViews:
    """Render the training views; later calls load them."""
    path = settings.work / "views.npz"
    meta = {"seed": settings.seed, "views": settings.views}
    if path.exists():
        with np.load(path) as stored:
            if json.loads(str(stored["meta"])) == meta:
                return TrainingViews(
                    torch.from_numpy(stored["rgba"]), stored["caption"], list(map(str, stored["phrase"])),
                    training_prompts(),
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
    azimuth, elevation = cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist()
    phrase = [view_phrase(a, e) for a, e in zip(azimuth, elevation, strict=True)]
    temporary = path.with_suffix(".part.npz")
    np.savez(temporary, rgba=rgba, caption=caption, phrase=np.array(phrase), meta=json.dumps(meta))
    temporary.replace(path)
    return TrainingViews(torch.from_numpy(rgba), caption, phrase, prompts)
