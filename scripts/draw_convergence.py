"""Draw how each method moves points in the plane, for data with a known score: docs/images/convergence.png.

    python scripts/draw_convergence.py

The data distributions of the prompt and of the empty text are Gaussians. Every method starts from the same
eight points and runs with the toy world's settings through the same core as all runs. With `--paths FOLDER`,
paths are kept there and not computed again.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from omegaconf import OmegaConf

from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.methods.base import Method
from trace_bench.priors.analytic import AnalyticPrior, Gaussian
from trace_bench.representations.image import Image
from trace_bench.rewards.base import Reward
from trace_bench.seeding import Rng
from trace_bench.settings.config import build
from trace_bench.system.config_path import conf_dir
from trace_bench.system.files import write_atomic

METHODS = [
    *("sds", "csd", "vsd", "sdi", "ism", "consistent3d", "dreamer_xl"),
    *("trace", "trace_official", "trace_official_trained"),
    *("nfsd", "bsd", "asd", "sctd", "sds_bridge", "cfd", "reward_sds"),
]
SHAPE = (1, 1, 2)
DATA, EMPTY, START, PATH, END = "#0072b2", "0.75", "0.45", "#e69f00", "#a3003a"
STARTS, STEPS, VIEWS = 8, 400, 4
STILL = CameraRange(distance=(2.0, 2.0), fovy_deg=(45.0, 45.0), elevation_deg=(0.0, 0.0))


def two_gaussians() -> AnalyticPrior:
    """The prompt's data are narrow and off-centre from those of the empty text."""
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    narrow = turn @ torch.diag(torch.tensor([0.16, 0.02])) @ turn.T
    prompt = Gaussian(torch.tensor([0.9, 0.5]), narrow)
    return AnalyticPrior({"y": prompt, "": Gaussian(torch.zeros(2), torch.eye(2))}, SHAPE, torch.float32)


class LogDensity(Reward):
    """The log-density of the prompt's data, up to a constant, as a reward of points in the plane."""

    metrics = ()

    def __call__(self, prompt: str, rgb: torch.Tensor) -> np.ndarray:
        self.counter.reward += len(rgb)
        return self.rate(prompt, rgb)  # a point has two channels, so it is no picture of PIL

    def rate(self, prompt: str, pictures: Any) -> np.ndarray:
        data = two_gaussians().gaussians[0]
        off = 2.0 * pictures.flatten(1) - 1.0 - data.mean  # AnalyticPrior.decode is (x + 1) / 2
        return -0.5 * np.einsum("ni,ij,nj->n", off, torch.linalg.inv(data.covariance), off)

    def files(self, download: bool) -> list[Path]:
        return []

    def tflop(self) -> float:
        return 0.0

    def identity(self) -> dict[str, Any]:
        return {}


def method_of(name: str, prior: AnalyticPrior, seed: int) -> tuple[Method, str]:
    """The method with its toy settings, and a learning rate suited to an adapter of twelve numbers."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", overrides=[f"method={name}", "prior=tiny"])
    spec: dict[str, Any] = OmegaConf.to_container(cfg.method, resolve=True)  # type: ignore[assignment]
    if "lora_lr" in spec:
        spec["lora_lr"] = 0.01
    if "reward" in spec:
        spec["reward"] = {"_target_": f"{__name__}.LogDensity"}
    method = build("method", spec, prior, guidance_scale=spec["guidance_scale"], seed=seed)
    return method, spec["display_name"]


def path_of(name: str, seed: int) -> tuple[np.ndarray, str]:
    """Every tenth position of the canvas over one run, including the initial one: [n, 2]."""
    prior = two_gaussians()
    method, title = method_of(name, prior, seed)
    canvas = Image(None, 2, SHAPE, seed=seed, device="cpu", mode="latent", lr=0.03)
    canvas.canvas.data.mul_(1.5)
    points = [canvas.canvas.detach().reshape(2).numpy().copy()]

    def remember(k: int, log: dict[str, float]) -> None:
        if k % 10 == 9:
            points.append(canvas.canvas.detach().reshape(2).numpy().copy())

    distill(
        prior,
        method,
        canvas,
        method.embed("y"),
        STILL,
        steps=STEPS,
        views_per_step=VIEWS,
        resolution=2,
        background="black",
        rng=Rng(seed),
        on_step=remember,
    )
    return np.stack(points), title


def ellipses(axes: Axes, gaussian: Gaussian, colour: str) -> None:
    """One and two standard deviations."""
    variances, directions = np.linalg.eigh(gaussian.covariance.numpy())
    angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
    for deviations in (1, 2):
        width, height = 2 * deviations * np.sqrt(variances[::-1])
        mean = tuple(gaussian.mean.tolist())
        axes.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, color=colour, lw=0.8))


def paths_of(name: str, folder: Path | None) -> tuple[np.ndarray, str]:
    """All paths [initial points, n, 2] and the title of the method, from `folder` if they are there."""
    file = folder / f"{name}.npz" if folder else None
    if file and file.is_file():
        with np.load(file) as kept:
            return kept["paths"], str(kept["title"])
    found = [path_of(name, seed) for seed in range(STARTS)]
    paths, title = np.stack([path for path, _ in found]), found[0][1]
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{name}.partial.npz")
        np.savez(partial, paths=paths, title=title)
        partial.replace(file)
    return paths, title


def draw(file: Path, folder: Path | None) -> None:
    """Draw one panel per method."""
    prior, found = two_gaussians(), {name: paths_of(name, folder) for name in METHODS}
    points = np.concatenate([paths.reshape(-1, 2) for paths, _ in found.values()])
    low, high = np.minimum(points.min(0), -2.3) - 0.2, np.maximum(points.max(0), 2.3) + 0.2  # nothing is cut
    rows, columns = 3, 6
    figure, panels = plt.subplots(
        rows, columns, figsize=(16.5, 9.6), sharex=True, sharey=True, layout="constrained"
    )
    for axes in panels.flat[len(METHODS) :]:
        axes.set_axis_off()
    for (name, (paths, title)), axes in zip(found.items(), panels.flat, strict=False):
        ellipses(axes, prior.gaussians[0], DATA)
        ellipses(axes, prior.gaussians[1], EMPTY)
        for path in paths:
            axes.plot(*path.T, color=PATH, lw=0.7)
            axes.plot(*path[0], "o", color=START, ms=2.5)
        ends = paths[:, -1]
        axes.plot(*ends.T, "o", color=END, ms=4, mec="white", mew=0.5, ls="")
        axes.set_title(title, fontsize=10)
        axes.set_aspect("equal")
        axes.set_xlim(low[0], high[0])
        axes.set_ylim(low[1], high[1])
        print(f"{name}: ends at {ends.mean(0).round(2)} +- {ends.std(0).round(2)}", flush=True)
    for axes in panels[-1]:
        axes.set_xlabel("first coordinate of the latent")
    for axes in panels[:, 0]:
        axes.set_ylabel("second coordinate")
    figure.legend(handles=legend(), loc="outside lower center", ncols=5, frameon=False, fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_atomic(file, content.getvalue())


def legend() -> list[Line2D]:
    """One entry per kind of mark."""
    return [
        Line2D([], [], color=DATA, lw=1, label="data of the prompt, 1 and 2 standard deviations"),
        Line2D([], [], color=EMPTY, lw=1, label="data of the empty text"),
        Line2D([], [], color=START, marker="o", ms=3, ls="", label="start"),
        Line2D([], [], color=PATH, lw=1, label=f"path of {STEPS} steps"),
        Line2D([], [], color=END, marker="o", ms=5, mec="white", ls="", label="end"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images/convergence.png"))
    parser.add_argument("--paths", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    draw(options.out, options.paths)
