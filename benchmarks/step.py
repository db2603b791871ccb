"""Time profile of a step per method: `python -m benchmarks.step prior=tiny`.

Prints milliseconds per step of each method, the ratio to SDS in the same run, the ratio to the same step with
networks that do not run as graphs, and the shares of renderer, encoder, method and optimiser; the rest is the
harness.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from benchmarks.arguments import parser_of
from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.priors.text import embed_prompt
from trace_bench.priors.traced import CALLS, Traced
from trace_bench.runs.build import load_prior, make_init, make_method, make_representation, resolve_device
from trace_bench.seeding import Rng
from trace_bench.settings.config import Job
from trace_bench.system.config_path import conf_dir

METHODS = ("sds", "vsd", "trace")
WARM_UP = 5  # steps; CALLS more until networks have become graphs


class Stopwatch:
    """Seconds per part of the step: of CPU, or by the clock with a GPU, which is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def now(self) -> float:
        self.wait()
        return time.perf_counter() if self.device.type == "cuda" else time.process_time()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[name] += self.now() - start

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return call(*args, **kwargs)

        return timed


def compose_job(method_name: str, overrides: list[str]) -> tuple[Job, str]:
    """The job of `method=method_name` with these overrides, and the first prompt of its prompt set."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("config", [f"method={method_name}", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return Job.from_config(cfg, HydraConfig.get()), str(cfg.prompt_set.prompts[0])


def measure(
    method_name: str, overrides: list[str], measured: int, warm_up: int
) -> tuple[float, dict[str, float]]:
    """(seconds per step, seconds per step and part)."""
    job, prompt = compose_job(method_name, overrides)
    device = resolve_device(job.device)
    prior = load_prior(job, device)
    method = make_method(job, prior)
    representation = make_representation(job, prior, make_init(job, prompt, device), device)
    text = embed_prompt(prior, prompt, method.negative_prompt)
    watch = Stopwatch(device)
    representation.render = watch.wrap("render", representation.render)  # type: ignore[method-assign]
    representation.post_backward = watch.wrap("optimise", representation.post_backward)  # type: ignore[method-assign]
    prior.encode = watch.wrap("encode", prior.encode)  # type: ignore[method-assign]
    method.step = watch.wrap("method", method.step)  # type: ignore[method-assign]
    began = 0.0

    def on_step(k: int, log: dict[str, float]) -> None:
        nonlocal began
        if k + 1 == warm_up:
            watch.seconds.clear()
            began = watch.now()

    distill(
        prior, method, representation, text, CameraRange.of(job.cameras), steps=warm_up + measured,
        views_per_step=job.views_per_step, resolution=job.resolution, background=job.background,
        rng=Rng(job.seed), log_every=warm_up + measured, on_step=on_step,
    )  # fmt: skip
    del prior.encode  # remove the wrapper; the prior is shared
    total = (watch.now() - began) / measured
    return total, {name: seconds / measured for name, seconds in watch.seconds.items()}


@contextmanager
def without_graphs() -> Iterator[None]:
    """Networks run as modules."""
    with patch.object(Traced, "__call__", lambda self, function, name, *inputs: function(*inputs)):
        yield


def main(arguments: list[str]) -> None:
    """Print one line per method."""
    parser = parser_of("step", __doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of `python -m trace_bench`")
    parser.add_argument("--steps", type=int, default=60, help="that are measured (%(default)s)")
    given = parser.parse_args(arguments)
    rows, before = {}, {}
    for name in METHODS:
        of = (name, given.overrides, given.steps)
        with without_graphs():
            first, _ = measure(*of, WARM_UP)
        rows[name] = measure(*of, WARM_UP + CALLS)
        with without_graphs():
            last, _ = measure(*of, WARM_UP)
        before[name] = (first + last) / 2
    base = rows["sds"][0]
    print(f"{'method':8} {'ms/step':>8} {'x sds':>6} {'x without graphs':>17}   share of the step")
    for name, (total, parts) in rows.items():
        shares = "  ".join(f"{part} {100 * seconds / total:.0f} %" for part, seconds in parts.items())
        rest = 100 * (1 - sum(parts.values()) / total)
        print(
            f"{name:8} {1e3 * total:8.1f} {total / base:6.2f} {total / before[name]:17.2f}   "
            f"{shares}  backward and harness {rest:.0f} %"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
