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

import os
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.arguments import parser_of
from benchmarks.dispatches import Dispatches
from benchmarks.gpu_checks import PROMPT, Budget, methods, run_checks
from benchmarks.on_meta import MetaPrior, points, write_configs
from benchmarks.step import compose_job
from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.methods.base import Method
from trace_bench.priors.base import Prior, TextEmbedding, Work
from trace_bench.priors.lanes.turns import Turns
from trace_bench.representations.base import Representation
from trace_bench.representations.gaussians import Gaussians
from trace_bench.runs.build import (
    free_memory,
    make_method,
    peak_memory_gb,
    start_memory_count,
    tflop_of,
)
from trace_bench.runs.environment import describe_environment
from trace_bench.runs.lane import Lane
from trace_bench.seeding import Rng
from trace_bench.system.files import write_json
from trace_bench.system.peak import mfu

TIMED = ("sds", "vsd", "trace")
LANES = (1, 2, 4, 8)
GAUSSIANS = 4096
SCHEMA = 1


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


@contextmanager
def at_most(seconds: float, out: Path) -> Iterator[None]:
    """End the process if the block takes longer: nobody can foresee how long a compiler takes."""

    def end() -> None:
        print(f"Not done after {seconds:.0f} s; {out} has all parts that are.", file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("gpu", __doc__)
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
    with at_most(budget.seconds + 30.0, args.out):
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
