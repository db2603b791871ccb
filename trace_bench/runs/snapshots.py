"""Snapshots of single steps: the render, the method's target for it, and gradients on its pixels.

Other methods can be evaluated on the same render with the same random draws, to compare their gradients.
Snapshots change neither the asset nor the counted work.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trace_bench.distill import Observation
from trace_bench.methods.base import Distilled, Geometry, Method
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.text import PromptText
from trace_bench.settings.config import Job, build
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic

FOLDER = "snapshots"
Asked = tuple[Method, PromptText]


class Snapshots:
    """Writes snapshots/<step>.npz for the requested steps; ignores steps after the end of the run.

    Arrays: rgb uint8 [B, H, W, 3]; plain, the same over white, if the render is over one
    colour; target uint8 [B, H, W, 3], the image that the gradient pulls towards, if
    the method has one; gradient float32 [B, H, W, 3], d(distillation loss) / d(rgb), if it has pixels;
    latent_gradient float32 [B, C, h, w]; azimuth_deg and elevation_deg [B]. For each method in `against` also
    target_<name>, gradient_<name> and latent_gradient_<name>.
    """

    def __init__(
        self, folder: Path, steps: Sequence[int], prior: Prior, against: Mapping[str, Asked]
    ) -> None:
        self.folder, self.steps, self.prior, self.against = folder, set(steps), prior, against

    def __call__(self, seen: Observation) -> None:
        """Write this step if it was requested."""
        if seen.progress.k not in self.steps:
            return
        with uncounted(self.prior.counter):
            arrays: dict[str, Any] = self._arrays(seen)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its stub takes them for flags
        path = self._path(seen.progress.k)
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, buffer.getvalue())

    def _arrays(self, seen: Observation) -> dict[str, np.ndarray]:
        rgb = seen.render.rgb
        picture = (
            self.prior.decode(seen.encoding.latents.detach()).permute(0, 2, 3, 1) if rgb is None else rgb
        )
        arrays = {
            "rgb": in_bytes(picture),
            "azimuth_deg": seen.view.azimuth_deg.cpu().numpy(),
            "elevation_deg": seen.view.elevation_deg.cpu().numpy(),
            **self._gradients(seen, seen.distilled, ""),
        }
        if rgb is not None and (plain := _on_white(rgb, seen.render.alpha, seen.background)) is not None:
            arrays["plain"] = in_bytes(plain)
        for name, (method, text) in self.against.items():
            geometry = Geometry(seen.render.depth.detach(), seen.render.alpha.detach())
            other = method.take_step(
                seen.encoding.latents.detach(), text, seen.view, seen.progress, seen.rng, geometry
            )
            arrays |= self._gradients(seen, other, f"_{name}")
        return arrays

    def _gradients(self, seen: Observation, distilled: Distilled, suffix: str) -> dict[str, np.ndarray]:
        """The arrays of one method for this render."""
        n = len(distilled.grad)
        arrays = {f"latent_gradient{suffix}": (distilled.grad / n).float().cpu().numpy()}
        if distilled.target is not None:
            target = self.prior.decode(distilled.target).permute(0, 2, 3, 1)
            arrays[f"target{suffix}"] = in_bytes(target)
        rgb = seen.render.rgb
        if rgb is not None and rgb.requires_grad:
            encoding = seen.encoding
            pulled = encoding.pull_back(distilled.grad / n, keep=True)
            (gradient,) = torch.autograd.grad(
                encoding.picture, rgb, pulled, retain_graph=True, allow_unused=True
            )
            gradient = torch.zeros_like(rgb) if gradient is None else gradient
            arrays[f"gradient{suffix}"] = gradient.float().cpu().numpy()
        return arrays

    def _path(self, step: int) -> Path:
        return self.folder / FOLDER / f"{step:05d}.npz"

    def files(self) -> list[str]:
        """The snapshots that exist, relative to the run folder."""
        paths = [self._path(step) for step in sorted(self.steps)]
        return [str(path.relative_to(self.folder)) for path in paths if path.is_file()]


def make_snapshots(job: Job, prior: Prior, prompt: str, folder: Path) -> Snapshots:
    """Build from the config."""
    settings = job.snapshots
    unknown = set(settings) - {"steps", "against"}
    if unknown:
        raise TraceBenchError(f"snapshots.{min(unknown)} is not a setting; use snapshots.steps and .against.")
    against: dict[str, Asked] = {}
    for name, spec in settings["against"].items() if settings["steps"] else ():
        against[name] = _asked(name, spec, job, prior, prompt)
    return Snapshots(folder, settings["steps"], prior, against)


def _asked(name: str, spec: Mapping[str, Any], job: Job, prior: Prior, prompt: str) -> Asked:
    method: Method = build("method", spec, prior, guidance_scale=spec.get("guidance_scale"), seed=job.seed)
    if method.state_dict():
        raise TraceBenchError(
            f"snapshots.against.{name} trains its own network, which would not be trained in this "
            "run; use a method without one, such as sds."
        )
    return method, method.embed(prompt, job.view_phrases)


@contextmanager
def uncounted(counter: Work) -> Iterator[None]:
    """Restore the work counter after the block."""
    before = counter.as_dict()
    try:
        yield
    finally:
        for name, count in before.items():
            setattr(counter, name, count)


def _on_white(rgb: Tensor, alpha: Tensor, background: Tensor) -> Tensor | None:
    """A render [B, H, W, 3] over its background [B, 3], over white instead; None if it is over something
    else (a learned background)."""
    colour = background[:, None, None, :]
    empty = (alpha < 1.0 / 255.0).expand_as(rgb)
    if alpha.shape[1:3] != rgb.shape[1:3] or ((rgb - colour).abs() > 2.0 / 255.0)[empty].any():
        return None
    return rgb + (1.0 - alpha) * (1.0 - colour)


def in_bytes(value: Tensor) -> np.ndarray:
    """Colours in [0, 1] as uint8, on the CPU."""
    return (value.detach().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()
