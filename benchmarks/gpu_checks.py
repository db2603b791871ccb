"""What `benchmarks.gpu` checks on a device, against the CPU in float32 with the tiny prior."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.rasteriser import ball, torch_rasterization
from benchmarks.step import compose_job
from trace_bench.cameras import CameraRange, make_cameras
from trace_bench.distill import distill
from trace_bench.methods.base import Geometry, Method
from trace_bench.priors.base import Prior, Work
from trace_bench.progress import Progress
from trace_bench.representations.base import Representation
from trace_bench.representations.gaussians.gaussians import rasterization_on
from trace_bench.representations.splat_cpu import rasterization as cpu_rasterization
from trace_bench.runs.build import (
    load_prior,
    make_init,
    make_method,
    make_representation,
)
from trace_bench.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from trace_bench.runs.run import make_asset
from trace_bench.seeding import Rng
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.config_path import conf_dir
from trace_bench.system.targets import constant_of

PROMPT = "a red cube"
TOLERANCE = 2e-3  # relative, between devices in float32


@dataclass
class Budget:
    """Seconds that are left."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)


@dataclass
class Check:
    """The outcome of one check; `error` is the largest relative difference, if it compares."""

    name: str
    ok: bool
    error: float | None = None
    said: str = ""


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference by the largest value."""
    difference = (found.detach().cpu().double() - expected.detach().cpu().double()).abs().max()
    return float(difference / expected.detach().abs().max().cpu().double().clamp(min=1e-30))


def tiny(method: str, device: torch.device, **overrides: object) -> tuple[Any, Prior]:
    """The job of a method on the tiny prior, or that for flows, in float32; and the prior."""
    given = [f"device={device}", *(f"{key}={value}" for key, value in overrides.items())]
    job, _ = compose_job(method, ["prior=tiny", *given])
    if constant_of("method", job.method, "needs_flow", False):
        job, _ = compose_job(method, ["prior=tiny_flow", *given])
    return job, load_prior(job, device)


def methods() -> list[str]:
    """The methods of conf/method that distil."""
    paths = sorted((Path(conf_dir()) / "method").glob("*.yaml"))
    return [path.stem for path in paths if OmegaConf.select(OmegaConf.load(path), "distils", default=True)]


def direction(name: str, device: torch.device) -> Tensor:
    """The gradient of step 3 of a method on fixed latents."""
    job, prior = tiny(name, device)
    method = make_method(job, prior)
    text, n, side = method.embed(PROMPT), 2, 16
    latents = Rng(1).at(0).randn("latents", (n, *prior.latent_shape), device)
    view = make_cameras(torch.tensor([10.0, 30.0]), torch.tensor([0.0, 100.0]), 2.6, 42.0, side, side)
    alpha = torch.zeros(n, side, side, 1)
    alpha[:, 4:12, 4:12] = 1.0
    geometry = Geometry((2.0 * alpha).to(device), alpha.to(device))
    return method.take_step(latents, text, view.to(device), Progress(3, 100), Rng(0).at(3), geometry).grad


def check_method(name: str, device: torch.device) -> Check:
    """A method's direction against the CPU's."""
    error = relative(direction(name, device), direction(name, torch.device("cpu")))
    return Check(f"step of {name}", error <= TOLERANCE, error)


def check_rasteriser(device: torch.device) -> Check:
    """gsplat against our rasteriser, picture and gradients; in a dry run plain torch stands for gsplat."""
    other = rasterization_on(device) if device.type == "cuda" else torch_rasterization

    def run(rasterization: Callable[..., Any], where: torch.device) -> list[Tensor]:
        params = [x.to(where).requires_grad_() for x in ball(2000 if device.type == "cuda" else 200)]
        camera = make_cameras(15.0, 30.0, 2.65, 42.5, 64, 64).to(where)
        background, weight = torch.full((1, 3), 0.5), torch.linspace(0.0, 1.0, 64 * 64 * 4).view(1, 64, 64, 4)
        image, _, _ = rasterization(
            *params, camera.viewmats, camera.Ks, 64, 64, backgrounds=background.to(where),
            render_mode="RGB+D", packed=False,
        )  # fmt: skip
        return [image, *torch.autograd.grad((image * weight.to(where)).sum(), params)]

    pairs = zip(run(other, device), run(cpu_rasterization, torch.device("cpu")), strict=True)
    error = max(relative(found, expected) for found, expected in pairs)
    return Check("gsplat against our rasteriser", error <= 2e-2, error, "pictures, and all gradients")


def steps_of(
    job: Any, prior: Prior, representation: Representation, method: Method, first: int, last: int, total: int
) -> None:
    """Steps `first` to `last` - 1 of a run of `total`."""
    ends = iter([False] * (last - first) + [True])
    distill(
        prior, method, representation, method.embed(PROMPT), CameraRange.of(job.cameras), steps=total,
        views_per_step=job.views_per_step, resolution=job.resolution, background=job.background,
        rng=Rng(job.seed), first_step=first, log_every=4, should_stop=lambda: next(ends),
    )  # fmt: skip


def parts(job: Any, prior: Prior, device: torch.device) -> tuple[Method, Representation]:
    init = make_init(job, PROMPT, device)
    return make_method(job, prior), make_representation(job, prior, init, device)


def check_nerf(device: torch.device) -> Check:
    """Two steps of SDS on NeRF; the picture afterwards against the CPU's."""

    def picture(where: torch.device) -> Tensor:
        job, prior = tiny("sds", where, representation="nerf", resolution=16)
        method, nerf = parts(job, prior, where)
        steps_of(job, prior, nerf, method, 0, 2, 100)
        camera = make_cameras(15.0, 30.0, 2.65, 42.5, 16, 16).to(where)
        with torch.no_grad():
            rgb = nerf.render(camera, torch.zeros(3, device=where)).rgb
        assert rgb is not None
        return rgb

    error = relative(picture(device), picture(torch.device("cpu")))
    return Check("NeRF", error <= 5e-2, error, "the picture after two steps")


def flat(state: Any) -> Iterator[Tensor]:
    """All floating-point tensors of a state, in order."""
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from flat(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from flat(value)


def check_resume(device: torch.device) -> Check:
    """Four steps of TraCe in one piece, and in two with new parts between, loaded from a checkpoint."""
    job, prior = tiny("trace", device)
    method, whole = parts(job, prior, device)
    steps_of(job, prior, whole, method, 0, 4, 200)
    first_method, first = parts(job, prior, device)
    steps_of(job, prior, first, first_method, 0, 2, 200)
    with tempfile.TemporaryDirectory() as name:
        written = Checkpoint("", 2, first.state_dict(), first_method.state_dict(), Work().as_dict(), {})
        save_checkpoint(Path(name), written)
        read = load_checkpoint(Path(name), "", 200)
    assert read is not None
    second_method, second = parts(job, prior, device)
    second_method.load_state_dict(read.method)
    second.load_state_dict(read.representation)
    steps_of(job, prior, second, second_method, 2, 4, 200)
    pairs = zip(flat(second.state_dict()["params"]), flat(whole.state_dict()["params"]), strict=True)
    error = max(relative(found, expected) for found, expected in pairs)
    return Check("resuming", error <= TOLERANCE, error, "all parameters after four steps")


def check_memory(device: torch.device) -> Check:
    """A run that fails leaves no GPU memory behind; the prior stays, so the second failure counts."""

    def fail(*_: object, **__: object) -> None:
        ballast = torch.zeros(1 << 24, device=device)  # in the frame that the error holds
        raise RuntimeError(f"not enough memory beside {ballast.numel()} numbers")

    used = []
    with tempfile.TemporaryDirectory() as root, mock.patch.object(Method, "take_step", fail):
        (run,) = make_plan(
            ["method=trace", "prior=tiny", f"device={device}", f"output_root={root}"], multirun=False
        )
        for _ in range(2):
            outcome = make_asset(run)
            if "not enough memory" not in outcome.message:
                raise RuntimeError(f"the run ended as {outcome.status}: {outcome.message}")
            used.append(torch.cuda.memory_allocated(device) if device.type == "cuda" else 0)
    left = used[1] - used[0]
    return Check("memory after a failed run", left < 2**20, said=f"{left} bytes more than before")


def run_checks(device: torch.device, names: Sequence[str], budget: Budget) -> list[Check]:
    """All checks; one that raises has failed."""
    calls: dict[str, Callable[[], Check]] = {
        "gsplat against our rasteriser": partial(check_rasteriser, device),
        "resuming": partial(check_resume, device),
        "NeRF": partial(check_nerf, device),
        "memory after a failed run": partial(check_memory, device),
    }
    calls |= {f"step of {name}": partial(check_method, name, device) for name in names}
    found = []
    for name, call in calls.items():
        if budget.left < 0:
            found.append(Check(name, False, said="not reached in time"))
            continue
        try:
            found.append(call())
        except Exception as error:  # noqa: BLE001  the others still count
            said = "".join(traceback.format_exception_only(error)).strip()
            found.append(Check(name, False, said=said))
        print(f"{'ok ' if found[-1].ok else 'BAD'} {found[-1].name} {found[-1].said}", flush=True)
    return found
