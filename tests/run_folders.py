"""Run folders for the tests, rendered from the toy world's own objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.metrics.base import Metric, Score, score_run
from trace_bench.cameras import EvaluationRig, make_cameras
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import Manifest, RunIdentity, read_manifest, write_manifest
from trace_bench.run_folder.reading import Run
from trace_bench.toyworld import scene_from_prompt

IDENTITY = RunIdentity(
    method="sds",
    representation="gaussians",
    init="random",
    prior="tiny",
    protocol="test",
    prompt_set="toy",
    prompt_id="0",
    prompt="a red cube",
    guidance_scale=15.0,
    seed=0,
    steps=300,
    views_per_step=1,
    resolution=64,
)


def write_run(
    root: Path,
    *,
    status: str = "done",
    minutes: float = 0.5,
    unet: tuple[int, int] = (600, 0),
    count: int | None = None,
    variant: str = "",
    snapshots: Sequence[int] = (),
    **identity,
) -> Path:
    """A run folder with only a manifest; `variant` is a setting that only config.yaml holds, and runs that
    differ only in `snapshots` have the same asset."""
    run = replace(IDENTITY, **identity)
    asset = hashlib.sha256(f"{run} {variant}".encode()).hexdigest()
    fingerprint = hashlib.sha256(f"{asset} {snapshots}".encode()).hexdigest() if snapshots else asset
    slug = run.prompt.replace(" ", "-")
    name = f"cfg{run.guidance_scale}-seed{run.seed}-{fingerprint[:8]}"
    folder = (
        root / "runs" / run.method / run.representation / run.prompt_set / f"{run.prompt_id}-{slug}" / name
    )
    folder.mkdir(parents=True)
    manifest = Manifest(
        status=status,
        fingerprint=fingerprint,
        asset=asset,
        run=run,
        seconds={
            "load": 12.0,
            "init": 0.1,
            "distill": minutes * 60 - 1,
            "render": 0.9,
            "total": minutes * 60 + 12,
        },
        cost={"unet_fwd": unet[0], "unet_bwd": unet[1], "tflop": 1.5},
        prompt_source={"name": "toy"} | ({"count": count} if count else {}),
        finished="2026-01-01T00:00:00+00:00",
        files=["renders/cameras.json", *(f"snapshots/{step:05d}.npz" for step in snapshots)],
    )
    write_manifest(folder, manifest)
    return folder


def draw(folder: Path, prompt: str, turn: float = 0.0, views: int = 12, resolution: int = 64) -> None:
    """Fill renders/ with a toy object, turned about the vertical axis."""
    rig = EvaluationRig(n_views=views, resolution=resolution)
    cameras = rig.cameras()
    turned = make_cameras(
        cameras.elevation_deg,
        cameras.azimuth_deg - turn,
        cameras.distance,
        cameras.fovy_deg,
        resolution,
        resolution,
    )
    scene = scene_from_prompt(prompt).render(turned)
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    normal = scene.normal.numpy() @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    save_renders(folder, scene.rgb.numpy(), scene.alpha[..., 0].numpy(), scene.depth[..., 0].numpy(), normal)
    write_cameras(folder, rig)


def save_renders(
    folder: Path, rgb: np.ndarray, alpha: np.ndarray, depth: np.ndarray, normal: np.ndarray | None = None
) -> None:
    """Pictures, silhouettes and depth as a run leaves them; without normals, white pictures of them."""
    renders = folder / "renders"
    renders.mkdir(exist_ok=True)
    covered = alpha[..., None]
    encoded = np.ones_like(rgb) if normal is None else covered * (0.5 * normal + 0.5) + 1.0 - covered
    for name, images in (("rgb", rgb), ("normal", encoded)):
        for i, image in enumerate(images):
            Image.fromarray(np.round(image * 255).astype(np.uint8)).save(renders / f"{name}_{i}.png")
    np.savez(
        renders / "geometry.npz", alpha=np.round(alpha * 255).astype(np.uint8), depth=depth.astype(np.float16)
    )


def write_cameras(folder: Path, rig: EvaluationRig) -> None:
    cameras = rig.cameras()
    views = [
        {
            "elevation_deg": float(cameras.elevation_deg[i]),
            "azimuth_deg": float(cameras.azimuth_deg[i]),
            "distance": float(cameras.distance[i]),
            "fovy_deg": float(cameras.fovy_deg[i]),
            "width": cameras.width,
            "height": cameras.height,
            "c2w": cameras.c2w[i].tolist(),
        }
        for i in range(len(cameras))
    ]
    (folder / "renders").mkdir(exist_ok=True)
    (folder / "renders" / "cameras.json").write_text(json.dumps(views))


def write_score(folder: Path, metric: Metric, **values: float | None) -> None:
    """A score file as written by `evaluation.score`, with given values."""
    score_run(given(metric, **values), Run(folder, read_manifest(folder)))


def given(metric: Metric, **values: float | None) -> Metric:
    """The metric, but always with these values; a partial one that is None does not apply to the run."""
    partial = {quantity.name for quantity in metric.quantities if quantity.partial}
    absent = tuple(name for name, value in values.items() if value is None and name in partial)

    class Given(type(metric)):  # type: ignore[misc]
        def files(self, run: Run) -> list[Path]:
            return []

        def score(self, run: Run) -> Score:
            return Score(values, rows=[{"view": i} for i in range(3)], inapplicable=absent)

    made = Given.__new__(Given)
    made.__dict__.update(metric.__dict__)
    return made


def only_run(root: Path) -> Run:
    index = read_index(root)
    runs, problems = list(index.runs.values()), index.problems
    assert not problems
    assert len(runs) == 1
    return runs[0]
