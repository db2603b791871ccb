"""The time left of a sweep, replayed with the durations of a real one."""

from __future__ import annotations

import contextlib
import heapq
import json
import random
from pathlib import Path

import pytest

from trace_bench.run_folder.live import Live
from trace_bench.sweeps import sweep
from trace_bench.sweeps.board import fraction_done
from trace_bench.sweeps.eta import Spent, Task, seconds_left
from trace_bench.sweeps.planning import make_plan
from trace_bench.sweeps.sweep_plan import read_sweeps

#: method: declared TFLOP, then (load, distill, init and renders) of a real sweep: 24 runs of 40 steps in the
#: toy world, 2 workers on 2 busy cores
RECORDED = {
    "sds": (0.0256, [
        (35.7, 10.6, 4.4), (37.7, 12.2, 4.9), (0.0, 15.3, 3.3), (0.0, 13.9, 3.0),
        (0.0, 12.4, 3.4), (0.0, 12.7, 3.1), (0.0, 11.3, 3.7), (0.0, 10.9, 3.0),
    ]),
    "vsd": (0.0509, [
        (1.2, 28.1, 3.9), (0.7, 29.3, 3.7), (0.0, 35.7, 5.3), (0.0, 36.5, 5.6),
        (0.0, 31.3, 4.1), (0.0, 31.5, 3.8), (0.0, 27.5, 4.6), (0.0, 26.9, 4.7),
    ]),
    "trace": (0.0435, [
        (0.7, 31.7, 4.4), (0.9, 31.4, 2.5), (0.0, 23.9, 3.5), (0.0, 24.7, 3.3),
        (0.0, 16.1, 5.4), (0.0, 15.3, 4.7), (0.0, 41.1, 3.9), (0.0, 41.1, 3.5),
    ]),
}  # fmt: skip
STEPS = 40


def replay(runs, workers, part):
    """The tasks when `part` of the declared cost is done, and the seconds that the rest then took."""
    free = [0.0] * workers
    starts = []
    for _, _, spent in runs:
        began = heapq.heapreplace(free, free[0] + spent.load + spent.distill + spent.other)
        starts.append(began)
    end = max(began + s.load + s.distill + s.other for began, (_, _, s) in zip(starts, runs, strict=True))
    costs = {i: cost for i, (_, cost, _) in enumerate(runs)}
    now = 0.0
    while True:
        tasks = [_at(now - began, *run) for began, run in zip(starts, runs, strict=True)]
        lives = {i: task.live for i, task in enumerate(tasks) if task.is_running}
        ended = [i for i, task in enumerate(tasks) if task.spent]
        if fraction_done(costs, ended, lives) >= part:
            return tasks, end - now
        now += 2.0


def _at(elapsed, method, cost, spent):
    """A run `elapsed` seconds after its start."""
    if elapsed < 0:
        return Task(method, "gaussians", cost)
    if elapsed >= spent.load + spent.distill + spent.other:
        return Task(method, "gaussians", cost, spent)
    elapsed -= spent.load
    if elapsed < 0:
        live = Live("load")
    elif elapsed < spent.distill:
        rate = STEPS / spent.distill
        live = Live("distill", int(elapsed * rate), STEPS, rate)
    else:
        live = Live("render", int(24 * (elapsed - spent.distill) / spent.other), 24)
    return Task(method, "gaussians", cost, None, True, live)


def recorded():
    return [(name, cost, Spent(*row)) for name, (cost, rows) in RECORDED.items() for row in rows]


@pytest.mark.parametrize("part", [1 / 3, 0.5, 0.75])
def test_within_a_quarter_after_a_third_of_the_declared_cost(part):
    tasks, left = replay(recorded(), 2, part)
    assert seconds_left(tasks, 2) == pytest.approx(left, rel=0.25)


#: A real sweep of 24 runs of 240 steps: 2 workers of 7 lanes on 2 busy cores. Of each run, in the order of
#: their start: method, declared TFLOP, its share of (load, distill, init and renders). Of each look: seconds
#: that the sweep still took, and what each run did.
LANES = json.loads((Path(__file__).parent / "sweep_in_lanes.json").read_text())


@pytest.mark.parametrize("look", LANES["looks"], ids=lambda look: f"{look['left']}s-left")
def test_within_a_quarter_with_seven_lanes(look):
    """After a third of the cost, 14 of 24 runs are under way and none is done."""
    tasks = []
    for (method, cost, *seconds), now in zip(LANES["runs"], look["runs"], strict=True):
        spent = Spent(*seconds) if now == "done" else None
        live = Live(*now) if isinstance(now, list) else None
        tasks.append(Task(method, "gaussians", cost, spent, now not in ("done", "waits"), live))
    assert seconds_left(tasks, 2, 7) == pytest.approx(look["left"], rel=0.25)


def test_runs_in_lanes_that_have_just_begun_do_not_mislead():
    """Their first steps are slow, since the others render. What the finished runs took counts for more."""
    done = [Task("vsd", "gaussians", 0.3, Spent(0.0, 12.0, 1.0)) for _ in range(14)]
    begun = Live("distill", 5, 240, 0.3)  # a third of the rate at which they will go on
    running = [Task("trace", "gaussians", 0.3, None, True, begun) for _ in range(10)]
    assert seconds_left([*done, *running], 2, 7) == pytest.approx(5 * 13.0, rel=0.25)


def test_runs_in_lanes_share_the_time_of_their_worker():
    """Each did half of its 4 cost at 0.5 cost/s; a run that waits takes the lane of the first that ends."""
    half = Task("sds", "gaussians", 4.0, None, True, Live("distill", 10, 20, 2.5))
    waits = Task("sds", "gaussians", 4.0)
    share, other = 4.0, 0.4  # seconds of the process for a run's steps; a tenth of them, as nothing is done
    assert seconds_left([half, half], 1, 2) == pytest.approx(2 * (share / 2 + other))
    assert seconds_left([half, half, waits], 1, 2) == pytest.approx(2 * (share / 2 + other) + share + other)
    assert seconds_left([half, half, waits], 2, 1) == pytest.approx(4.0 + 0.8 + 8.0 + 0.8)


def test_a_worker_with_more_runs_takes_longer():
    """Seven runs of one worker end after three of another; who makes a run is known from its claim."""
    done = [Task("sds", "gaussians", 1.0, Spent(0.0, 9.0, 1.0))]
    new = Live("distill", 0, 20)
    staff = [Task("sds", "gaussians", 1.0, None, True, new, "a" if i < 7 else "b") for i in range(10)]
    assert seconds_left([*done, *staff], 2, 7) == pytest.approx(70.0)
    unknown = [Task("sds", "gaussians", 1.0, None, True, new)] * 10
    assert seconds_left([*done, *unknown], 2, 7) == pytest.approx(50.0)


def test_runs_that_load_beside_others_do_not_make_the_others_slow():
    """One of two lanes is still loading: the other's pace is that of half a worker."""
    half, loads = Task("sds", "gaussians", 4.0, None, True, Live("distill", 10, 20, 2.5)), Live("load")
    loading = Task("sds", "gaussians", 4.0, None, True, loads)
    assert seconds_left([half, loading], 1, 2) == pytest.approx(4.0 / 2 + 4.0 + 2 * 0.4)


@pytest.mark.slow
def test_the_simulated_order_is_the_real_one(monkeypatch, tmp_path):
    """With lanes the longest runs start first; the board and the plan for `status --watch` know it."""
    seen = {}

    class Watching(contextlib.nullcontext):
        started = ended = say = None

        def __init__(self, plan, missing, workers, stop, lanes):
            seen["watched"] = [run.folder for run in plan], workers, lanes
            super().__init__(self)

    def make(runs, *told, lanes):
        seen["made"] = [run.folder for run in runs], 1, lanes

    monkeypatch.setattr(sweep, "Watching", Watching)
    monkeypatch.setattr(sweep, "make_in_turn", make)
    plan = make_plan(
        ["method=sds,vsd", "prompt=0,1", f"output_root={tmp_path}", "lanes=7", "hydra/launcher=basic"], True
    )
    launcher = {"_target_": "BasicLauncher"}
    assert sweep._make(plan, plan, launcher, ["python"]) == 0
    assert seen["watched"] == seen["made"]
    (written,) = read_sweeps(tmp_path)
    assert [tmp_path / name for name in written.runs] == seen["made"][0]
    assert [folder.relative_to(tmp_path).parts[1] for folder in seen["made"][0]] == [
        "vsd",
        "vsd",
        "sds",
        "sds",
    ]


@pytest.mark.parametrize("order", [("cheap", "middle", "dear"), ("dear", "cheap", "middle")])
@pytest.mark.parametrize("seed", range(3))
def test_methods_of_very_different_cost(order, seed):
    """A pace for each step, an overhead for each run, and a tenth of chance; six workers."""
    draw, costs = random.Random(seed), {"cheap": 1.0, "middle": 4.0, "dear": 10.0}
    runs = []
    for method in order:
        for _ in range(30):
            distill = 12 * costs[method] * draw.uniform(0.9, 1.1)
            runs.append((method, costs[method], Spent(1.0, distill, 30 * draw.uniform(0.9, 1.1))))
    tasks, left = replay(runs, 6, 1 / 3)
    assert seconds_left(tasks, 6) == pytest.approx(left, rel=0.25)


def test_cost_matters_where_nothing_of_a_kind_is_done():
    done = [
        Task("sds", "gaussians", 1.0, Spent(9.0, 10.0, 2.0)),
        Task("sds", "gaussians", 1.0, Spent(0.0, 10.0, 2.0)),
    ]
    assert seconds_left([*done, Task("vsd", "gaussians", 3.0)], 1) == pytest.approx(32.0)
    assert seconds_left([*done, *[Task("vsd", "gaussians", 3.0)] * 4], 2) == pytest.approx(64.0)


def test_before_anything_is_done_the_running_steps_tell():
    assert seconds_left([Task("sds", "gaussians", 1.0)], 1) is None
    running = Task("sds", "gaussians", 1.0, None, True, Live("distill", 5, 20, 2.0))
    left, overhead = 7.5 + 20.0, 0.1 * (10.0 + 20.0)  # init and renders: a tenth of the steps
    assert seconds_left([running, Task("sds", "gaussians", 2.0)], 1) == pytest.approx(left + overhead)
    assert seconds_left([], 2) == 0.0


def test_runs_without_a_declared_cost():
    done = Task("external", "external", 0.0, Spent(0.0, 0.0, 5.0))
    assert seconds_left([done, Task("external", "external", 0.0)], 2) == pytest.approx(5.0)
    assert fraction_done({"a": 0.0, "b": 0.0}, ["a"], {}) == 0.5
