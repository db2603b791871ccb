"""The Python API: make assets and load their parts, with the names and settings of the command.

`trace_bench` re-exports these functions; docs/python_api.md shows how to use them. Keyword settings are those
of `python -m trace_bench`: `steps=100` is `steps=100`; `rig={"n_views": 8}` and `**{"rig.n_views": 8}` are
`rig.n_views=8`.
"""

from __future__ import annotations

import base64
import contextlib
import html
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from trace_bench.methods.base import Method
from trace_bench.priors import base as priors
from trace_bench.representations.base import Representation
from trace_bench.run_folder.manifest import RENDERS, Manifest, is_done, read_manifest
from trace_bench.run_folder.rendering import PREVIEW, TURNTABLE
from trace_bench.runs import build
from trace_bench.runs.identity import RunSpec
from trace_bench.runs.run import make_asset
from trace_bench.settings.typed_text import as_overrides
from trace_bench.sweeps.interrupt import listening
from trace_bench.sweeps.planning import check_jobs, make_plan
from trace_bench.sweeps.preflight import preflight
from trace_bench.sweeps.watching import Watching
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    import torch


class Asset:
    """A finished run: its folder, its manifest and its pictures. A notebook shows the pictures.

    Args:
        folder: the run folder, such as outputs/runs/sds/gaussians/toy/0-a-red-cube/cfg4-seed0-0123abcd.

    Raises:
        TraceBenchError: the folder contains no finished run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        if manifest is None or not is_done(self.folder, manifest):
            raise TraceBenchError(f"{self.folder} contains no finished run; make it, or name another folder.")
        self.manifest: Manifest = manifest  # settings, seconds, work, versions, files

    def __repr__(self) -> str:
        return f"Asset({str(self.folder)!r})"

    def rgb(self, view: int) -> Image.Image:
        """The asset over white from view `view`, 0 <= view < manifest.views: 8-bit RGB, `rig.resolution`
        pixels a side. View 0 is the front; azimuths are evenly spaced.
        """
        return self._picture("rgb", view)

    def normal(self, view: int) -> Image.Image:
        """The normals of the same view in world space as colours, (n + 1) / 2; white where empty."""
        return self._picture("normal", view)

    @property
    def preview(self) -> Image.Image:
        """Eight views around the asset in one picture, colours above normals."""
        with Image.open(self.folder / PREVIEW) as picture:
            return picture.copy()

    @property
    def turntable(self) -> Path | None:
        """The film of one turn, an .mp4; None for representation=image."""
        path = self.folder / TURNTABLE
        return path if path.is_file() else None

    def _picture(self, kind: str, view: int) -> Image.Image:
        if not 0 <= view < self.manifest.views:
            raise IndexError(f"there is no view {view}: {self!r} has {self.manifest.views}")
        with Image.open(self.folder / RENDERS / f"{kind}_{view}.png") as picture:
            return picture.copy()

    def _repr_html_(self) -> str:
        """The preview and the film, embedded, with method, representation and prompt."""
        run = self.manifest.run
        title = html.escape(f"{run.method}, {run.representation}: {run.prompt}")
        parts = [f'<img src="{_data(self.folder / PREVIEW, "image/png")}" alt="{title}">']
        if self.turntable:
            film = _data(self.turntable, "video/mp4")
            parts.append(f'<video src="{film}" autoplay loop muted playsinline></video>')
        where = html.escape(str(self.folder))
        return f"<div>{' '.join(parts)}<br>{title}<br><code>{where}</code></div>"


def _data(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def make(prompt: str | int = 0, *, config_dir: str | Path | None = None, **settings: Any) -> Asset:
    """Make one asset like `python -m trace_bench`, in the same folder. A finished asset is only opened.

    An interrupted run resumes. Ctrl-C and a notebook's stop button end the run after the current step, with a
    checkpoint.

    Args:
        prompt: a text, or a 0-based index of the prompt set.
        config_dir: a folder with config groups of your own, like --config-dir.
        settings: those of the command (see the module).

    Raises:
        TraceBenchError: a setting is wrong, the run failed, or another process is making the asset.
    """
    run = _one({"prompt": prompt, **settings}, config_dir)
    if run.job.detach or run.job.dry_run:
        name = "detach" if run.job.detach else "dry_run"
        raise TraceBenchError(f"{name}=True is for the command `python -m trace_bench`; leave it out.")
    check_jobs([run.job])
    preflight([run], {})
    with contextlib.ExitStack() as stack:
        is_shown = sys.stdout.isatty()
        stop = stack.enter_context(listening(says=not is_shown))
        if is_shown:
            stack.enter_context(Watching([run], [run], 1, stop)).started(run.folder)
        outcome = make_asset(run, stop)
    if stop.signum == signal.SIGINT:
        raise KeyboardInterrupt
    if stop():
        raise SystemExit(stop.exit_code)
    if outcome.status not in ("done", "skipped"):
        raise TraceBenchError(f"{outcome.folder}: {outcome.message or outcome.status}")
    return Asset(outcome.folder)


def load_prior(
    name: str = "tiny", *, device: str = "auto", config_dir: str | Path | None = None, **settings: Any
) -> priors.Prior:
    """Load a prior of conf/prior/, such as "tiny" or "sd21"; once per process for equal settings.

    Args:
        device: auto (the GPU if there is one), cpu, cuda or cuda:N.
        settings: those of the command, such as `**{"prior.dtype": "float32"}`.

    Raises:
        TraceBenchError: there is no such prior, setting or device, or its weights cannot be loaded.
    """
    job = _one({"prior": name, "device": device, **settings}, config_dir).job
    return build.load_prior(job, build.resolve_device(job.device))


def load_method(
    name: str,
    prior: priors.Prior,
    *,
    protocol: str = "toy",
    config_dir: str | Path | None = None,
    **settings: Any,
) -> Method:
    """Load a method of conf/method/ for a prior, with the settings that the command would use.

    Args:
        prior: the prior to distil, from `load_prior` or your own.
        protocol: toy for the tiny prior, paper for Stable Diffusion.
        settings: those of the command, such as `guidance_scale=7.5` or `**{"method.grad_clamp": None}`.

    Raises:
        TraceBenchError: there is no such method or setting.
    """
    job = _one({"method": name, "protocol": protocol, **settings}, config_dir).job
    return build.make_method(job, prior)


def load_representation(
    name: str,
    prior: priors.Prior,
    *,
    prompt: str = "",
    protocol: str = "toy",
    config_dir: str | Path | None = None,
    **settings: Any,
) -> Representation:
    """Load a representation of conf/representation/, initialised, on the prior's device.

    Args:
        prior: determines the latent shape and the device.
        prompt: for inits that use a text, such as init="shap_e".
        protocol: toy or paper.
        settings: those of the command, such as `init="sphere"`, `seed=1` or
            `**{"representation.opacity": 0.2}`.

    Raises:
        TraceBenchError: there is no such representation or setting, or the init does not fit it.
    """
    asked = {"representation": name, "protocol": protocol, **({"prompt": prompt} if prompt else {})}
    job = _one({**asked, **settings}, config_dir).job
    device: torch.device = prior.device
    return build.make_representation(job, prior, build.make_init(job, prompt, device), device)


def _one(settings: dict[str, Any], config_dir: str | Path | None) -> RunSpec:
    """The one run that the settings describe."""
    folder = None if config_dir is None else str(config_dir)
    runs = make_plan(as_overrides(settings), multirun=False, config_dir=folder)
    if len(runs) != 1:
        raise TraceBenchError(
            f"prompt={settings['prompt']!r} asks for {len(runs)} assets, but make() makes one; "
            "call it in a loop."
        )
    return runs[0]
