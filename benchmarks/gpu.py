"""Is the GPU path right, and how fast is it? `python -m benchmarks.gpu`: offline, at most nine minutes.

First it checks on the GPU, with the tiny prior in float32: the step of each method against the CPU, gsplat
against our rasteriser, NeRF, resuming, and memory after a failed run. Then it times sds, vsd and trace on SD
2.1's networks with random weights: eager, compiled, and with several lanes. Everything goes into one JSON,
written after each part; `scripts/gpu_page.py FILE` makes the tables of docs/performance.md from it. Exits
with 1 if a check fails. What does not fit into the time is left out and named.

`--dry` goes through all of it on the CPU, with small networks and no compiler: it tests this
file and measures nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.dispatches import Dispatches
from benchmarks.on_meta import MetaPrior, points, write_configs
from benchmarks.rasteriser import ball, torch_rasterization
from benchmarks.step import compose_job
from trace_bench.cameras import CameraRange, make_cameras
from trace_bench.distill import distill
from trace_bench.methods.base import Geometry, Method
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.priors.lanes.turns import Turns
from trace_bench.progress import Progress
from trace_bench.representations.base import Representation
from trace_bench.representations.gaussians import Gaussians
from trace_bench.representations.gaussians.gaussians import rasterization_on
from trace_bench.representations.splat_cpu import rasterization as cpu_rasterization
from trace_bench.runs.build import (
    free_memory,
    load_prior,
    make_init,
    make_method,
    make_representation,
    peak_memory_gb,
    start_memory_count,
    tflop_of,
)
from trace_bench.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from trace_bench.runs.environment import describe_environment
from trace_bench.runs.lane import Lane
from trace_bench.runs.run import make_asset
from trace_bench.seeding import Rng
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.config_path import conf_dir
from trace_bench.system.files import write_json
from trace_bench.system.peak import mfu
from trace_bench.system.targets import constant_of

TIMED = ("sds", "vsd", "trace")
LANES = (1, 2, 4, 8)
PROMPT = "a red cube"
TOLERANCE = 2e-3  # relative, between devices in float32
GAUSSIANS = 4096
SCHEMA = 1


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


class RandomPrior(MetaPrior):
    """Stable Diffusion with random weights, made on the device itself; texts have random embeddings."""

    def _load(self, cls: Any, folder: Path, subfolder: str, dtype: torch.dtype) -> torch.nn.Module:
        with self.device:
            network = cls.from_config(cls.load_config(folder, subfolder=subfolder))
        torch.nn.Module.to(network, dtype)
        network = network.eval().requires_grad_(False)
        return network.to(memory_format=torch.channels_last) if self.device.type == "cuda" else network

    def embed(self, texts: Sequence[str]) -> TextEmbedding:
        tokens = super().embed(texts).tokens
        return TextEmbedding(torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0)).to(tokens))


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


# --- checks -----------------------------------------------------------------------------------------------


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


# --- times ------------------------------------------------------------------------------------------------


@dataclass
class Timing:
    """One method in one mode. `skipped` says why there is none."""

    method: str
    mode: str  # eager or compiled
    lanes: int
    first_step_s: float | None = None  # with compiling
    ms_per_step: float | None = None  # median; with lanes, by the steps of all together
    kernels: int | None = None  # started in one step; in a dry run: operations outside graphs
    tflop_per_step: float | None = None
    tflop_per_s: float | None = None
    mfu: float | None = None
    peak_memory_gb: float | None = None
    skipped: str = ""


def random_prior(folder: Path, device: torch.device, compile: bool, dry: bool) -> RandomPrior:
    """SD 2.1, or in a dry run something small with its topology."""
    if not (folder / "base").exists():
        write_configs(folder, small=dry)
    return RandomPrior(
        str(folder / "base"), adapter_repo=str(folder / "adapter"), resolution=32 if dry else 512,
        dtype="float32" if dry else "bfloat16", compile=compile, device=device,
    )  # fmt: skip


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def kernels_of(step: Callable[[], None], device: torch.device) -> int:
    """Kernels that a step starts on a GPU, or operations on a CPU."""
    if device.type != "cuda":
        with Dispatches(device) as counter:
            step()
        return counter.counts["kernels"]
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        wait(device)
    return sum(event.count for event in profiler.key_averages() if event.device_type.name == "CUDA")


@dataclass
class Runs:
    """One run, or several in lanes, of a method on a shared prior: 3D Gaussians, one view a step."""

    method: str
    prior: RandomPrior
    device: torch.device
    lanes: int
    gaussians: int

    def __post_init__(self) -> None:
        self._turns = Turns()
        turns = self._turns if self.lanes > 1 else None
        self._lanes = [Lane(self.lanes, turns) for _ in range(self.lanes)]
        self._parts: dict[int, tuple[Prior, Method, Representation]] = {}

    @property
    def first_method(self) -> Method:
        """The method of the first run, after its first step."""
        return self._parts[0][1]

    def steps(self, first: int, last: int) -> None:
        """Steps `first` to `last` - 1 of each run, which are of length 1700, as in the paper."""
        if self.lanes == 1:
            self._run(0, first, last)
        else:
            for i, lane in enumerate(self._lanes):
                self._turns.start(lane.seat, partial(self._run, i, first, last))
            while self._turns.go_on():
                pass
        wait(self.device)

    def _run(self, i: int, first: int, last: int) -> None:
        if i not in self._parts:
            job, _ = compose_job(self.method, ["prior=sd21", "prompt_set=paper"])
            prior = self._lanes[i].prior(self.prior, self._lanes[i].mode)
            side, shape = self.prior.resolution, self.prior.latent_shape
            asset = Gaussians(points(self.gaussians), side, shape, seed=i, device=self.device)
            self._parts[i] = prior, make_method(job, prior), asset
        prior, method, representation = self._parts[i]
        ends = iter([False] * (last - first) + [True])
        distill(
            prior, method, representation, method.embed(PROMPT), CameraRange(), steps=1700, first_step=first,
            views_per_step=1, resolution=self.prior.resolution, background="random", rng=Rng(i),
            log_every=10**6, should_stop=lambda: next(ends),
        )  # fmt: skip

    @property
    def work(self) -> Work:
        """Of all runs so far, without padding."""
        return sum((prior.counter for prior, _, _ in self._parts.values()), Work())


def measure(
    name: str, mode: str, lanes: int, prior: RandomPrior, device: torch.device, budget: Budget, dry: bool
) -> Timing:
    """Steps of a method in the middle of a run."""
    timing = Timing(name, mode, lanes)
    runs = Runs(name, prior, device, lanes, 64 if dry else GAUSSIANS)
    start_memory_count(device)
    began = time.perf_counter()
    runs.steps(100, 101)
    timing.first_step_s = round(time.perf_counter() - began, 3)
    before, seconds = runs.work, list[float]()
    per_call, most = (1, 2) if dry else (10, 10)
    while len(seconds) < most and (len(seconds) < 2 or budget.left > 0):
        began, k = time.perf_counter(), 101 + per_call * len(seconds)
        runs.steps(k, k + per_call)
        seconds.append((time.perf_counter() - began) / (per_call * lanes))
    steps = per_call * len(seconds) * lanes
    timing.ms_per_step = round(1e3 * statistics.median(seconds), 3)
    timing.peak_memory_gb = peak_memory_gb(device)
    timing.tflop_per_step = round((tflop_of(prior, runs.work - before, runs.first_method) or 0.0) / steps, 4)
    timing.tflop_per_s = round(1e3 * timing.tflop_per_step / timing.ms_per_step, 3)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    share = mfu(timing.tflop_per_s, gpu, "bfloat16")
    timing.mfu = None if share is None else round(share, 4)
    if lanes == 1:
        timing.kernels = kernels_of(lambda: runs.steps(300, 301), device)
    return timing


def run_timings(device: torch.device, budget: Budget, dry: bool) -> Iterator[Timing]:
    """Each method eager, compiled, and with lanes; all of one mode share a prior."""
    with tempfile.TemporaryDirectory() as name:
        for mode in ("eager", "compiled"):
            compiler = (lambda call, **settings: call) if dry else torch.compile
            with mock.patch.object(torch, "compile", compiler):
                prior = None
                counts = (LANES[:2] if dry else LANES) if mode == "compiled" else (1,)
                for lanes, method in [(n, m) for n in counts for m in TIMED]:
                    if budget.left < 0:
                        yield Timing(method, mode, lanes, skipped="not reached in time")
                        continue
                    try:
                        prior = prior or random_prior(Path(name), device, mode == "compiled", dry)
                        yield measure(method, mode, lanes, prior, device, budget, dry)
                    except Exception as error:  # noqa: BLE001  the others still count
                        said = "".join(traceback.format_exception_only(error)).strip()
                        yield Timing(method, mode, lanes, skipped=said[:500])
                del prior
            free_memory()


# --- report -----------------------------------------------------------------------------------------------


def end_after(seconds: float, out: Path) -> None:
    """End the process then: a compiler may take longer than anyone can foresee."""

    def end() -> None:
        print(f"Not done after {seconds:.0f} s; {out} has all parts that are.", file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu.json"), help="the JSON to write")
    parser.add_argument(
        "--minutes", type=float, default=8.5, help="start nothing later; half a minute after it, end (8.5)"
    )
    parser.add_argument("--dry", action="store_true", help="on the CPU with small networks; measures nothing")
    args = parser.parse_args(arguments)
    if not args.dry and not torch.cuda.is_available():
        print("torch sees no GPU here; run this on a machine with one, or use --dry.", file=sys.stderr)
        return 2
    device = torch.device("cpu" if args.dry else "cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    budget = Budget(60.0 * args.minutes)
    report: dict[str, Any] = {
        "schema": SCHEMA, "dry": args.dry, "environment": describe_environment(str(device)),
        "checks": [], "timings": [],
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    end_after(budget.seconds + 30.0, args.out)
    checks = run_checks(device, methods(), Budget(0.4 * budget.seconds))
    report["checks"] = [asdict(check) for check in checks]
    write_json(args.out, report)
    # One step may compile for a minute: stop starting in time.
    for timing in run_timings(device, Budget(budget.left - (0.0 if args.dry else 60.0)), args.dry):
        report["timings"].append(asdict(timing))
        write_json(args.out, report)
        print(timing, flush=True)
    report["seconds"] = round(budget.seconds - budget.left, 1)
    write_json(args.out, report)
    print(f"written to {args.out} after {report['seconds']:.0f} s")
    return int(not all(check["ok"] for check in report["checks"]))


if __name__ == "__main__":
    sys.exit(main())
