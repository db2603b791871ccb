"""The pictures, films and 3D files of a run that travel with the report.

Each run has a folder `media/<key>/`. The key changes with the run, so what is there is up to date.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evaluation.figures.contact_sheet import nearest_view
from evaluation.metrics.geometry import evenly
from evaluation.metrics.renders import open_rgb, pose
from evaluation.metrics.truth import is_toy, truth, truth_hash
from evaluation.web.page import inline_json
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_json
from trace_bench.system.splat_file import is_splat_ply, splat_of_ply

MEDIA, _ABOUT = "media", "about.json"
FRONT = 35.0  # azimuth of the picture in the gallery: front ¾, as on the contact sheet
STRIP = 12  # views around the asset on a run's page
_VERSION = "1"  # of what is written here; raise it to make all again
_POSTER_PX, _VIEW_PX = 192, 128
_TRUE_FRAMES = 60
_LARGEST_ASSET = 64 * 2**20  # bytes; a browser decodes it as text


@dataclass(frozen=True)
class Media:
    """What the page may show of one run."""

    key: str
    has: str = ""  # p poster, f film, v views, g geometry (alpha, depth), s splats, m mesh, o over the run
    start: float = 0.0  # position in the film of the picture in the gallery, from 0 to 1
    views: Sequence[int] = ()  # shown on the strip
    depth: tuple[float, float] | None = None  # nearest and farthest depth on the strip, world units
    over: Sequence[int] = ()  # numbers of steps: the columns of the pictures over the run
    sides: int = 0  # rows of these pictures


def media_of(
    run: Run, turn: float, folder: Path, wanted: str, over: Mapping[int, Run] | None = None
) -> Media:
    """Write what is missing of a run's media.

    Args:
        over: the asset after some numbers of steps, by number, with the last; none without `renders_at`.
        turn: azimuth in degrees at which the asset fits the truth best; 0 if unknown.
        folder: of the report.
        wanted: which kinds, as in `Media.has`.

    Raises: TraceBenchError if a file of the run cannot be read.
    """
    over = over if over and "o" in wanted else {}
    state = f"{_VERSION} {run.manifest.fingerprint} {run.manifest.finished} {turn} {sorted(wanted)}"
    if over:
        state += f" {[(n, at.manifest.fingerprint, at.manifest.finished) for n, at in over.items()]}"
    key = hashlib.sha256(state.encode(errors="replace")).hexdigest()[:12]
    target = folder / MEDIA / key
    if (known := _known(target)) is not None:
        return known
    cameras = run.cameras
    front, first = (nearest_view(run, azimuth + turn) if len(cameras) > 1 else 0 for azimuth in (FRONT, 0.0))
    views = [(first + view) % len(cameras) for view in evenly(len(cameras), min(STRIP, len(cameras)))]
    shape = _geometry(run, views) if "g" in wanted else None
    near_far = None if shape is None else _range(*shape)
    with _new(target) as partial:
        _write(run, partial, front, views, wanted)
        if shape is not None:
            _strip([_grey(alpha) for alpha in shape[0]], partial / "alpha.webp")
            colours = [_coloured(depth, alpha, near_far) for alpha, depth in zip(*shape, strict=True)]
            _strip(colours, partial / "depth.webp")
        sides = _over_the_run(over, turn, partial / "over.webp") if over else 0
        media = Media(key, _kinds(partial), front / len(cameras), views, near_far, list(over), sides)
        write_json(partial / _ABOUT, asdict(media))
    return media


def _known(target: Path) -> Media | None:
    """What was written at an earlier call."""
    try:
        return Media(**json.loads((target / _ABOUT).read_text()))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def _new(target: Path) -> Iterator[Path]:
    """A folder that gets its name once it is complete."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _kinds(folder: Path) -> str:
    """The kinds of media that a folder holds, as in `Media.has`."""
    names = {
        "p": "poster.webp", "f": "turntable.mp4", "v": "rgb.webp", "g": "depth.webp", "s": "splat.js",
        "m": "mesh.js", "o": "over.webp",
    }  # fmt: skip
    return "".join(kind for kind, name in names.items() if (folder / name).exists())


def _write(run: Run, folder: Path, front: int, views: Sequence[int], wanted: str) -> None:
    """Poster, film, strips of views, and the 3D file."""
    if "p" in wanted:
        _smaller(open_rgb(run.rgb(front)), _POSTER_PX).save(folder / "poster.webp", quality=82)
    film = run.folder / "turntable.mp4"
    if "f" in wanted and film.exists():
        shutil.copyfile(film, folder / "turntable.mp4")
    if "v" in wanted:
        _strip([open_rgb(run.rgb(view)) for view in views], folder / "rgb.webp")
        if all(run.normal(view).exists() for view in views):
            _strip([open_rgb(run.normal(view)) for view in views], folder / "normal.webp")
    splats, mesh = run.folder / "asset.ply", run.folder / "asset.glb"
    if "s" in wanted and is_splat_ply(splats):
        _sidecar(folder / "splat.js", splat_of_ply(splats))
    elif "m" in wanted and mesh.exists():
        _sidecar(folder / "mesh.js", mesh.read_bytes())


def _over_the_run(over: Mapping[int, Run], turn: float, path: Path) -> int:
    """A column for each number of steps, a row for each side; returns the number of sides."""
    columns = []
    for at in over.values():
        azimuths = (FRONT + turn, FRONT + turn + 180.0) if len(at.cameras) > 1 else (0.0,)
        columns.append([open_rgb(at.rgb(nearest_view(at, azimuth))) for azimuth in azimuths])
    _sheet(list(zip(*columns, strict=True)), path, _POSTER_PX)
    return len(columns[0])


def _sidecar(path: Path, content: bytes) -> None:
    """A file as a classic script, because a page opened from disk can load scripts, but no other bytes."""
    if len(content) <= _LARGEST_ASSET:
        text = base64.b64encode(content).decode()
        path.write_text(f'asset({inline_json(path.parent.name.strip(".").partition(".")[0])},"{text}");\n')


def true_media(prompt: str, rig: Run, folder: Path, wanted: str) -> Media | None:
    """The true object of a toy prompt, seen from the cameras of a run; None for other prompts."""
    if not is_toy(prompt) or len(rig.cameras) < 2:
        return None
    camera = rig.cameras[0]
    elevation, _, distance, fovy = pose(camera)
    rig_of = f"{elevation} {distance} {fovy} {camera['height']}"
    state = f"{_VERSION} {truth_hash()} {prompt} {rig_of} {sorted(wanted)}"
    key = "t" + hashlib.sha256(state.encode()).hexdigest()[:12]
    target = folder / MEDIA / key
    if (known := _known(target)) is not None:
        return known
    scene = truth(prompt, int(camera["height"]))

    def seen(azimuths: Sequence[float]) -> list[NDArray[np.uint8]]:
        views = scene.views([(elevation, azimuth, distance, fovy) for azimuth in azimuths])
        return list(np.round(views.rgb * 255).astype(np.uint8))

    with _new(target) as partial:
        if "p" in wanted:
            _smaller(Image.fromarray(seen([FRONT])[0]), _POSTER_PX).save(partial / "poster.webp", quality=82)
        if "v" in wanted:
            around = seen([360.0 / STRIP * i for i in range(STRIP)])
            _strip([Image.fromarray(image) for image in around], partial / "rgb.webp")
        if "f" in wanted:
            from trace_bench.run_folder.rendering import write_film

            frames = seen([360.0 / _TRUE_FRAMES * i for i in range(_TRUE_FRAMES)])
            write_film(np.stack(frames), partial / "turntable.mp4")
        media = Media(key, _kinds(partial), FRONT / 360.0)
        write_json(partial / _ABOUT, asdict(media))
    return media


def forget_others(folder: Path, keys: set[str]) -> None:
    """Remove the media of runs that are no longer in the report."""
    for path in (folder / MEDIA).glob("*"):
        if path.name not in keys:
            shutil.rmtree(path, ignore_errors=True)


def _geometry(run: Run, views: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """alpha in [0, 1] and depth of some views, both [V, H, W]; None if the run has none."""
    if not run.geometry.exists():
        return None
    try:
        with np.load(run.geometry, allow_pickle=False) as arrays:
            return (
                arrays["alpha"][list(views)].astype(np.float32) / 255.0,
                arrays["depth"][list(views)].astype(np.float32),
            )
    except Exception as error:  # decoders raise whatever they meet
        raise TraceBenchError(f"{run.geometry} cannot be read ({error}).") from error


def _range(alpha: NDArray[np.float32], depth: NDArray[np.float32]) -> tuple[float, float] | None:
    seen = depth[(alpha > 0.5) & (depth > 0)]
    return (round(float(seen.min()), 3), round(float(seen.max()), 3)) if seen.size else None


def _grey(image: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.round(image * 255).astype(np.uint8)).convert("RGB")


def _coloured(
    depth: NDArray[np.float32], alpha: NDArray[np.float32], near_far: tuple[float, float] | None
) -> Image.Image:
    """Depth in cividis, which the colour-blind can read: near is bright, far dark, empty white."""
    from matplotlib import colormaps

    near, far = near_far or (0.0, 1.0)
    scaled = 1.0 - np.clip((depth - near) / max(far - near, 1e-6), 0.0, 1.0)
    colour = colormaps["cividis"](scaled)[..., :3]
    solid = ((alpha > 0.5) & (depth > 0))[..., None]
    return Image.fromarray(np.round(np.where(solid, colour, 1.0) * 255).astype(np.uint8))


def _strip(images: Sequence[Image.Image], path: Path) -> None:
    """The images side by side."""
    _sheet([images], path, _VIEW_PX)


def _sheet(rows: Sequence[Sequence[Image.Image]], path: Path, size: int) -> None:
    """Rows of images of one size, at most `size` pixels high each."""
    small = [[_smaller(image, size) for image in row] for row in rows]
    width, height = small[0][0].size
    sheet = Image.new("RGB", (width * len(small[0]), height * len(small)), "white")
    for i, row in enumerate(small):
        for j, image in enumerate(row):
            sheet.paste(
                image if image.size == (width, height) else image.resize((width, height)),
                (j * width, i * height),
            )
    sheet.save(path, quality=82)


def _smaller(image: Image.Image, size: int) -> Image.Image:
    if image.height <= size:
        return image
    return image.resize((round(image.width * size / image.height), size), Image.Resampling.LANCZOS)
