"""Lanes against one run after the other.

    python -m benchmarks.lanes --lanes 1,7 --methods sds,vsd

For each method, and for all of them mixed: steps a second over all runs, as a ratio to the same runs one
after the other in the single mode, in the same process. Seconds of the CPU, so that a busy machine changes
little. The tiny prior, one thread.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchmarks.arguments import parser_of
from benchmarks.step import compose_job
from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.priors.lanes.turns import Turns
from trace_bench.priors.traced import CALLS
from trace_bench.runs.build import load_prior, make_init, make_method, make_representation
from trace_bench.runs.lane import Lane
from trace_bench.seeding import Rng
from trace_bench.settings.config import Job

METHODS = ("sds", "ism", "sdi", "trace", "vsd")
CPU = torch.device("cpu")
Task = tuple[Job, str, int]  # settings, prompt, seed


def one_run(task: Task, lane: Lane, steps: int) -> None:
    """Distil one asset in a lane."""
    job, prompt, seed = task
    prior = lane.prior(load_prior(job, CPU), lane.mode)
    method = make_method(job, prior)
    representation = make_representation(job, prior, make_init(job, prompt, CPU), CPU)
    distill(
        prior, method, representation, method.embed(prompt, job.view_phrases), CameraRange.of(job.cameras),
        steps=steps, views_per_step=job.views_per_step, resolution=job.resolution, background=job.background,
        rng=Rng(seed), log_every=steps,
    )  # fmt: skip


def in_turn(tasks: Sequence[Task], steps: int) -> None:
    """One run after the other, without lanes."""
    for task in tasks:
        one_run(task, Lane(), steps)


def in_lanes(tasks: Sequence[Task], steps: int, lanes: int) -> None:
    """`lanes` runs at a time, in the batched mode."""
    turns, todo = Turns(), list(tasks)
    while todo or turns:
        while todo and len(turns) < lanes:
            lane = Lane(max(lanes, 2), turns)
            turns.start(lane.seat, partial(one_run, todo.pop(0), lane, steps))
        turns.go_on()


def seconds_of(call: Callable[[], None]) -> float:
    """CPU seconds of all threads of this process."""
    began = time.process_time()
    call()
    return time.process_time() - began


def measure(methods: Sequence[str], runs: int, steps: int, counts: Sequence[int]) -> list[float]:
    """Steps a second in lanes over those in turn, for each number of lanes."""
    jobs = [compose_job(name, []) for name in methods]
    tasks = [(*jobs[i % len(jobs)], i) for i in range(runs)]
    # Libraries load, kernels compile, sizes are probed, networks become graphs.
    warm_up = min(CALLS, steps * runs)
    in_turn(tasks[: len(jobs)], warm_up)
    for lanes in counts:
        in_lanes(tasks[: max(lanes, len(jobs))], warm_up, lanes)
    before = seconds_of(lambda: in_turn(tasks, steps))
    found = [seconds_of(lambda n=n: in_lanes(tasks, steps, n)) for n in counts]  # type: ignore[misc]
    after = seconds_of(lambda: in_turn(tasks, steps))
    return [(before + after) / 2.0 / seconds for seconds in found]


def main(arguments: Sequence[str]) -> None:
    """Print one line for each method and one for the mixture."""
    parser = parser_of("lanes", __doc__)
    parser.add_argument("--steps", type=int, default=20, help="of each run (%(default)s)")
    parser.add_argument("--runs", type=int, default=16, help="of each method (%(default)s)")
    parser.add_argument("--lanes", default="1,2,4,7,8,16", metavar="N,N", help="(%(default)s)")
    parser.add_argument("--methods", default=",".join(METHODS), metavar="A,B", help="(%(default)s)")
    given = parser.parse_args(arguments)
    steps, runs, methods = given.steps, given.runs, tuple(given.methods.split(","))
    counts = [int(n) for n in given.lanes.split(",")]
    torch.set_num_threads(1)
    print(f"{runs} runs of {steps} steps; steps per CPU second, as a ratio to one run after the other")
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    print(f"{'method':10} " + " ".join(f"{n:>3} lanes" for n in counts))
    for names in [*((name,) for name in methods), *([methods] if len(methods) > 1 else [])]:
        ratios = measure(names, runs, steps, counts)
        label = names[0] if len(names) == 1 else "mixed"
        print(f"{label:10} " + " ".join(f"{ratio:9.2f}" for ratio in ratios), flush=True)
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
