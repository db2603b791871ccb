"""The evaluation rig: renders a finished asset from all sides, as images, geometry and a video."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol, Self, TypeVar

import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trace_bench.cameras import Cameras, EvaluationRig
from trace_bench.render import Renderable
from trace_bench.run_folder.manifest import RENDERS
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_json

TURNTABLE, PREVIEW, PICTURE = "turntable.mp4", "preview.png", "asset.png"
PREVIEW_VIEWS = 8
FILM_SECONDS = 4.0
FILM_MIN_PIXELS = 256
_PARTIAL = ".renders.partial"
_PNG_LEVEL = 1  # zlib level: a third of the default's time for a tenth more bytes

Decode = Callable[[Tensor], Tensor]
OnViews = Callable[[int, int], None]  # told of the views that are rendered, and of all
OnPictures = Callable[[int, np.ndarray, np.ndarray], None]  # a batch: its first view, colours, normals
T = TypeVar("T")


class Away(Protocol):
    """Does work that renders nothing and only writes, and returns its result; others may go on meanwhile."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


def here(work: Callable[[], T], /) -> T:
    """Do it in this thread."""
    return work()


@dataclass(frozen=True)
class RigRenders:
    """All views of an asset over white, on the CPU."""

    rgb: np.ndarray  # uint8 [N, H, W, 3]
    normal: np.ndarray  # uint8 [N, H, W, 3], world space, (n + 1) / 2, white where empty
    alpha: np.ndarray | None  # uint8 [N, H, W]; None if only images are available
    depth: np.ndarray | None  # float16 [N, H, W], z in the camera's frame, 0 where empty


def write_renders(
    representation: Renderable,
    rig: EvaluationRig,
    decode: Decode,
    device: torch.device,
    folder: Path,
    on_views: OnViews = lambda done, total: None,
    away: Away = here,
) -> tuple[list[str], int]:
    """Render the rig and write renders/, preview.png and turntable.mp4 into the run folder.

    A representation whose views do not matter (an image) gets a single image, asset.png, and no video.

    Returns: names of all files except the single images of renders/, and the number of views.
    """
    cameras = rig.cameras()
    turns = representation.views_matter
    cameras = cameras if turns else cameras[0:1]
    with _Writing(_empty(folder / _PARTIAL), len(cameras), film=turns) as writing:
        views = render_views(
            representation, cameras, decode, device, on_views=on_views, on_pictures=writing.add
        )

        def rest() -> tuple[list[str], int]:
            writing.finish()
            return _write_rest(views, cameras, folder, turns)

        return away(rest)


def write_views(
    views: RigRenders, cameras: Cameras, folder: Path, turns: bool = True
) -> tuple[list[str], int]:
    """Like `write_renders` for existing views, one per camera; without geometry.npz if they have none."""
    with _Writing(_empty(folder / _PARTIAL), len(cameras), film=turns) as writing:
        writing.add(0, views.rgb, views.normal)
        writing.finish()
        return _write_rest(views, cameras, folder, turns)


def write_bare_renders(
    representation: Renderable,
    rig: EvaluationRig,
    decode: Decode,
    device: torch.device,
    folder: Path,
    on_views: OnViews = lambda done, total: None,
    away: Away = here,
) -> list[str]:
    """Render the rig into `folder`/renders, without preview and video; returns the names of all files."""
    cameras = rig.cameras()
    cameras = cameras if representation.views_matter else cameras[0:1]
    partial = _empty(folder / _PARTIAL)
    with _Writing(partial, len(cameras), film=False) as writing:
        views = render_views(
            representation, cameras, decode, device, on_views=on_views, on_pictures=writing.add
        )

        def rest() -> list[str]:
            writing.finish()
            files = _write_numbers(views, cameras, partial)
            _put_in_place(partial, folder)
            return files

        files = away(rest)
    pictures = (f"{RENDERS}/{kind}_{i}.png" for kind in ("rgb", "normal") for i in range(len(views.rgb)))
    return [*files, *pictures]


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _write_rest(views: RigRenders, cameras: Cameras, folder: Path, turns: bool) -> tuple[list[str], int]:
    """Write what needs all views, and move everything from the partial folder into place."""
    partial = folder / _PARTIAL
    files = _write_numbers(views, cameras, partial)
    _preview(views).save(partial / PREVIEW)
    if not turns:
        Image.fromarray(views.rgb[0]).save(partial / PICTURE)
    beside = [PREVIEW, TURNTABLE if turns else PICTURE]
    for name in beside:
        (partial / name).replace(folder / name)
    _put_in_place(partial, folder)
    return [*files, *beside], len(views.rgb)


def _write_numbers(views: RigRenders, cameras: Cameras, partial: Path) -> list[str]:
    """Write cameras and geometry; returns their names in renders/."""
    _write_cameras(cameras, partial / "cameras.json")
    files = [f"{RENDERS}/cameras.json"]
    if views.alpha is not None and views.depth is not None:
        np.savez_compressed(partial / "geometry.npz", alpha=views.alpha, depth=views.depth)
        files.append(f"{RENDERS}/geometry.npz")
    return files


def _put_in_place(partial: Path, folder: Path) -> None:
    shutil.rmtree(folder / RENDERS, ignore_errors=True)
    partial.replace(folder / RENDERS)


@torch.no_grad()
def render_views(
    representation: Renderable,
    cameras: Cameras,
    decode: Decode,
    device: torch.device,
    batch: int = 8,
    on_views: OnViews = lambda done, total: None,
    on_pictures: OnPictures = lambda first, rgb, normal: None,
) -> RigRenders:
    """The views of all cameras, rendered in batches.

    Raises: TraceBenchError if a colour, coverage, normal, or depth of a visible pixel is NaN or infinite.
    """
    white = torch.ones(3, device=device)
    parts = []
    for start in range(0, len(cameras), batch):
        render = representation.render(cameras[start : start + batch].to(device), white, with_normals=True)
        rgb = render.rgb
        if rgb is None:
            if render.latents is None:
                raise ValueError("a Render needs rgb or latents")
            rgb = decode(render.latents).permute(0, 2, 3, 1)
        alpha, depth = (_like(rgb, value) for value in (render.alpha, render.depth))
        normal = torch.zeros_like(rgb) if render.normal is None else _like(rgb, render.normal)
        coloured = alpha * (0.5 * normal + 0.5) + (1.0 - alpha)
        visible = (alpha * 255.0).round() > 0.0
        stored = torch.where(visible, depth, 0.0)[..., 0].half()
        _check_finite({"colour": rgb, "alpha": alpha, "depth": stored, "normal": normal}, start)
        parts.append([_bytes(rgb), _bytes(coloured), _bytes(alpha[..., 0]), stored.cpu().numpy()])
        on_pictures(start, *parts[-1][:2])
        on_views(min(start + batch, len(cameras)), len(cameras))
    return RigRenders(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _check_finite(images: dict[str, Tensor], first_view: int) -> None:
    """Raise for the first of these images [B, ...] that has NaN or infinite values."""
    for name, values in images.items():
        finite = torch.isfinite(values).flatten(1).all(dim=1)
        if not bool(finite.all()):
            view = first_view + int((~finite).int().argmax())
            raise TraceBenchError(
                f"The rendered {name} of view {view} is NaN or infinite; the asset has values that cannot be "
                "rendered, so the run is not finished."
            )


def _like(rgb: Tensor, value: Tensor) -> Tensor:
    """`value` resized to the image: a decoded latent is larger than its canvas."""
    if value.shape[1:3] == rgb.shape[1:3]:
        return value
    return torch.nn.functional.interpolate(value.permute(0, 3, 1, 2), rgb.shape[1:3]).permute(0, 2, 3, 1)


def _bytes(value: Tensor) -> np.ndarray:
    return (value.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()


class _Writing:
    """Writes rgb_<i>.png, normal_<i>.png and the film on threads of its own, while the next views are
    rendered: rasterising, compression and the encoder all work without the GIL.

    A context manager; after a failure it removes the folder.
    """

    def __init__(self, folder: Path, count: int, film: bool) -> None:
        self._folder = folder
        self._frames: SimpleQueue[np.ndarray | None] | None = SimpleQueue() if film else None
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1) + film)
        self._jobs: list[Future[None]] = []
        if self._frames is not None:
            self._jobs.append(
                self._pool.submit(write_film, _until_none(self._frames), folder / TURNTABLE, count)
            )

    def add(self, first: int, rgb: np.ndarray, normal: np.ndarray) -> None:
        """Write a batch of views, uint8 [N, H, W, 3]; `first` is the number of its first view."""
        for i, pictures in enumerate(zip(rgb, normal, strict=True), start=first):
            for kind, picture in zip(("rgb", "normal"), pictures, strict=True):
                self._jobs.append(self._pool.submit(_save, picture, self._folder / f"{kind}_{i}.png"))
            if self._frames is not None:
                self._frames.put(pictures[0])

    def finish(self) -> None:
        """Wait for all files; raises what failed."""
        if self._frames is not None:
            self._frames.put(None)
        for job in self._jobs:
            job.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._frames is not None:
            self._frames.put(None)
        self._pool.shutdown(cancel_futures=error is not None)
        if error is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _until_none(frames: SimpleQueue[np.ndarray | None]) -> Iterator[np.ndarray]:
    while (frame := frames.get()) is not None:
        yield frame


def _save(picture: np.ndarray, path: Path) -> None:
    Image.fromarray(picture).save(path, compress_level=_PNG_LEVEL)


def _write_cameras(cameras: Cameras, path: Path) -> None:
    names = ("elevation_deg", "azimuth_deg", "distance", "fovy_deg")
    rows = [
        {name: float(getattr(cameras, name)[i]) for name in names}
        | {"width": cameras.width, "height": cameras.height, "c2w": cameras.c2w[i].tolist()}
        for i in range(len(cameras))
    ]
    write_json(path, rows)


def _preview(views: RigRenders) -> Image.Image:
    """Eight views around the asset, colours above normals."""
    n = len(views.rgb)
    chosen = [i * n // PREVIEW_VIEWS for i in range(PREVIEW_VIEWS)] if n >= PREVIEW_VIEWS else range(n)
    rows = [np.concatenate([array[i] for i in chosen], axis=1) for array in (views.rgb, views.normal)]
    return Image.fromarray(np.concatenate(rows, axis=0))


def write_film(frames: Iterable[np.ndarray], path: Path, count: int) -> None:
    """Write one turn of `count` frames, uint8 [H, W, 3], as H.264, with small images enlarged, in a pixel
    format that every player supports."""
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return
    height, width = first.shape[:2]
    size = [max(FILM_MIN_PIXELS, side // 2 * 2) for side in (width, height)]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=count / FILM_SECONDS,
        codec="libx264",
        quality=7,
        macro_block_size=1,  # the size is even
        ffmpeg_log_level="error",
        output_params=[
            *("-f", "mp4", "-preset", "veryfast"),
            *("-vf", f"scale={size[0]}:{size[1]}:flags=bicubic"),
        ],
    )
    writer.send(None)
    try:
        for picture in chain([first], frames):
            writer.send(np.ascontiguousarray(picture))
    finally:
        writer.close()
