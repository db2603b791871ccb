"""Runs that share a prior in lanes: each asset has the same bits alone, among others, and after a stop."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from configured import FLOW, NAMES
from greenlet import getcurrent
from quick_runs import asset, stop_at
from sd_checkpoint import make_checkpoint

from trace_bench.methods.sds import SDS
from trace_bench.priors import traced
from trace_bench.priors.adapter import LoraAdapter
from trace_bench.run_folder import rendering
from trace_bench.run_folder.manifest import read_manifest, write_manifest
from trace_bench.runs import open_run
from trace_bench.runs.build import load_prior
from trace_bench.runs.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from trace_bench.runs.identity import RunSpec
from trace_bench.runs.lane import Lane
from trace_bench.runs.lanes import Lanes, make_in_lanes
from trace_bench.runs.run import make_asset
from trace_bench.sweeps.planning import make_plan

STEPS = 4
SMALL = [
    "log_every=1", "resolution=16", "init=random", "init.n=60", "rig.n_views=1",
    "rig.resolution=8", "prior.resolution=16", "protocol=toy", "views_per_step=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> list[str]:
    """Networks of SD 2.1's topology; the adapter's predicts v."""
    folder = tmp_path_factory.mktemp("lanes")
    base, v = make_checkpoint(folder / "base"), make_checkpoint(folder / "v", "v_prediction", seed=1)
    return [
        "prior=tiny",
        f"prior.repo={base}",
        f"+prior.adapter_repo={v}",
        "prior.adapter_unet=unet",
        "prior.adapter_scheduler=scheduler",
    ]


@pytest.fixture
def planned(prior):
    def of(
        methods: str, out: Path, prompts: str = "0", steps: int = STEPS, networks: Sequence[str] = prior
    ) -> list[RunSpec]:
        overrides = [*networks, *SMALL, f"method={methods}", f"prompt={prompts}", f"steps={steps}"]
        runs = make_plan(overrides, multirun=True, config_dir=None)
        return [
            RunSpec(dataclasses.replace(run.job, output_root=str(out)), run.prompt, run.prompt_set)
            for run in runs
        ]

    return of


def assets(runs: list[RunSpec]) -> dict[tuple[str, str], dict[str, bytes]]:
    return {(run.identity.method, run.prompt.prompt_id): asset(run.folder) for run in runs}


def is_finished(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() and read_manifest(folder).status == "done"


def in_lanes(runs: list[RunSpec], lanes: int) -> dict[tuple[str, str], dict[str, bytes]]:
    prior = load_prior(runs[0].job, torch.device("cpu"))  # new networks draw their weights
    prior.adapter(rank=1, seed=0)
    before = {run.folder for run in runs if is_finished(run.folder)}
    drawn = torch.get_rng_state()
    outcomes = list(make_in_lanes(runs, lanes, lambda: False))
    assert torch.equal(torch.get_rng_state(), drawn)  # nothing draws from what all share
    expected = {(run.folder, "skipped" if run.folder in before else "done", "") for run in runs}
    assert {(how.folder, how.status, how.message) for how in outcomes} == expected
    return assets(runs)


def batched_alone(run: RunSpec, should_stop=lambda: False):
    """The run without others in the batched mode."""
    return make_asset(run, should_stop, Lane(lanes=2))


def check_equal_bits(planned, tmp_path, methods: str, counts: tuple[int, ...], stopped_with: int = 0) -> None:
    """Alone, then in lanes in other orders; before `stopped_with` lanes, they are stopped on their way.

    Alone, networks run as modules; in lanes, as graphs from the second call on.
    """
    alone = planned(methods, tmp_path / "alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traced.Traced, "__call__", lambda self, function, name, *inputs: function(*inputs))
        for run in alone:
            assert batched_alone(run).status == "done"
    expected = assets(alone)
    for lanes in counts:
        runs = planned(methods, tmp_path / f"lanes{lanes}")
        runs = runs[::-1] if lanes == 4 else runs[1::2] + runs[::2]
        if lanes == stopped_with:
            asked = iter(range(10**6))
            list(make_in_lanes(runs, 3, lambda asked=asked: next(asked) >= 2 * len(alone)))
        found = in_lanes(runs, lanes)
        assert {key for key, value in expected.items() if found[key] != value} == set()


@pytest.fixture
def early_graphs(monkeypatch):
    monkeypatch.setattr(traced, "CALLS", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("early_graphs")
def test_an_asset_has_the_same_bits_alone_and_among_others(planned, tmp_path):
    check_equal_bits(planned, tmp_path, "sds,trace,ism", (4,))


@pytest.mark.slow
@pytest.mark.usefixtures("early_graphs")
def test_every_method_has_the_same_bits_alone_and_among_others(planned, tmp_path):
    check_equal_bits(planned, tmp_path, ",".join(NAMES), (2, 4, 8), stopped_with=2)


@pytest.mark.slow
@pytest.mark.usefixtures("early_graphs")
def test_methods_for_flows_have_the_same_bits_alone_and_among_others(planned, tmp_path):
    """Their calls are for a velocity. The prior is the one that we ship."""
    check_equal_bits(partial(planned, networks=["prior=tiny_flow"]), tmp_path, ",".join(FLOW), (2, 4))


@pytest.mark.slow
def test_work_is_counted_for_each_lane(planned, tmp_path):
    """The padded rows and those of others are no work of a run, and its time is its share."""
    together, apart = planned("sds,vsd", tmp_path / "a"), planned("sds,vsd", tmp_path / "b")
    in_lanes(together, 2)
    for run, other in zip(together, apart, strict=True):
        make_asset(other)
        one, two = read_manifest(run.folder), read_manifest(other.folder)
        assert one.cost == two.cost
        assert (one.mode, one.lanes, two.mode, two.lanes) == ("batched", 2, "single", 1)
        assert one.batch_sizes["eps"]
        assert two.batch_sizes == {}
        assert one.minutes is None
        assert one.minutes_shared is not None
        assert two.minutes_shared is None
        log_txt = (run.folder / "log.txt").read_text()
        assert str(run.folder) in log_txt
        assert not any(str(of.folder) in log_txt for of in together if of is not run)


@pytest.mark.slow
def test_a_stopped_run_goes_on_in_its_mode(planned, tmp_path):
    """Batched, then alone in a process without lanes, or the other way round."""
    whole, stopped, single, resumed = (planned("vsd", tmp_path / name)[0] for name in "wstr")
    batched_alone(whole)
    assert batched_alone(stopped, stop_at(2)).status == "preempted"
    assert load_checkpoint(stopped.folder, stopped.fingerprint, STEPS).mode == "batched"
    assert make_asset(stopped).status == "done"
    assert asset(stopped.folder) == asset(whole.folder)
    assert read_manifest(stopped.folder).mode == "batched"
    make_asset(single)
    assert make_asset(resumed, stop_at(2)).status == "preempted"
    assert batched_alone(resumed).status == "done"
    assert asset(resumed.folder) == asset(single.folder)
    assert read_manifest(resumed.folder).mode == "single"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["stopped", "killed", "without a checkpoint"])
def test_time_is_shared_if_a_checkpoint_of_the_lanes_remains(planned, tmp_path, what):
    runs = planned("sds,vsd", tmp_path)
    asked = iter(range(10**6))
    list(make_in_lanes(runs, 2, lambda: next(asked) >= 4))
    run = runs[0]
    before = read_manifest(run.folder)
    assert (before.status, before.lanes) == ("preempted", 2)
    if what == "killed":  # the manifest is that of the beginning
        write_manifest(run.folder, dataclasses.replace(before, status="running", lanes=1))
    elif what == "without a checkpoint":
        (run.folder / CHECKPOINT).unlink()
    assert make_asset(run).status == "done"
    manifest = read_manifest(run.folder)
    if what == "without a checkpoint":
        assert (manifest.mode, manifest.lanes, manifest.minutes_shared) == ("single", 1, None)
    else:
        assert (manifest.mode, manifest.lanes, manifest.minutes) == ("batched", 2, None)


def test_a_run_that_goes_on_with_batches_of_other_sizes_says_so(planned, tmp_path):
    """As on another machine, whose libraries have other classes of sizes."""
    (run,) = planned("sds", tmp_path)
    assert batched_alone(run, stop_at(2)).status == "preempted"
    stopped = load_checkpoint(run.folder, run.fingerprint, STEPS)
    assert stopped.batch_sizes["eps"]
    save_checkpoint(run.folder, dataclasses.replace(stopped, batch_sizes={"eps": [9]}))
    assert batched_alone(run).status == "done"
    log_txt = (run.folder / "log.txt").read_text()
    assert "Batches of other sizes than before: ['eps']; the last bits may differ." in log_txt


@pytest.mark.slow
@pytest.mark.parametrize("work", [(rendering._Writing, "finish"), (open_run, "record_files")])
@pytest.mark.parametrize("lanes", [1, 2])
def test_others_go_on_while_a_lane_only_writes(work, lanes, planned, tmp_path, monkeypatch):
    """Its pictures and film, and the hashes of its files: the other run ends first. With one lane, that is
    the next run, which begins meanwhile."""
    (short,), (long,) = planned("sds", tmp_path / "a", steps=1), planned("sds", tmp_path / "b")
    write, is_over = getattr(*work), threading.Event()

    def slow(first, *rest):
        if short.folder in (first, getattr(first, "_folder", first).parent):  # a run folder, or writes in one
            assert is_over.wait(60)
        write(first, *rest)

    monkeypatch.setattr(*work, slow)
    ended = []
    for outcome in make_in_lanes([short, long], lanes, lambda: False):
        ended.append((outcome.folder, outcome.status))
        is_over.set()
    assert ended == [(long.folder, "done"), (short.folder, "done")]


def test_a_stop_leaves_checkpoints_and_a_failure_stops_nobody(planned, tmp_path, monkeypatch):
    runs = planned("sds,vsd", tmp_path, "0,1")
    asked = iter(range(10**6))
    outcomes = list(make_in_lanes(runs, 4, lambda: next(asked) >= 12))
    assert [how.status for how in outcomes] == ["preempted"] * 4
    assert all((run.folder / "checkpoint.pt").exists() for run in runs)
    step = SDS.step

    def fails(self, latents, text, view, progress, rng):
        if progress.k == 3:
            raise RuntimeError("of one lane")
        return step(self, latents, text, view, progress, rng)

    monkeypatch.setattr(SDS, "step", fails)
    ended = {how.folder: how for how in make_in_lanes(runs, 4, lambda: False)}
    for run in runs:
        how = ended[run.folder]
        assert how.status == {"sds": "failed", "vsd": "done"}[run.identity.method]
        assert how.message == ("RuntimeError: of one lane" if how.status == "failed" else "")
        assert not (run.folder / ".live.json").exists()
    assert logging.getLogger("trace_bench").handlers == []


def test_a_loss_that_fails_fails_its_lane_only(planned, tmp_path, monkeypatch):
    runs = planned("vsd", tmp_path, "0,1")
    target = LoraAdapter.target
    calls = []

    def first_of_two(self, x0, eps, t):
        calls.append(getcurrent())
        found = target(self, x0, eps, t)
        return found[:, :3] if calls[-1] is calls[0] else found

    monkeypatch.setattr(LoraAdapter, "target", first_of_two)
    statuses = [how.status for how in make_in_lanes(runs, 2, lambda: False)]
    assert sorted(statuses) == ["done", "failed"]


def test_a_second_ctrl_c_ends_all_lanes(planned, tmp_path):
    runs = planned("sds", tmp_path, "0,1", steps=100_000)
    asked = set()
    lanes, ended = Lanes(2), []
    for run in runs:
        lanes.start(run, lambda run=run: asked.add(run.folder), lambda run, how: ended.append(how.status))
    while lanes and len(asked) < 2:
        lanes.go_on()
    lanes.end()
    assert ended == ["preempted"] * 2
    assert not lanes
    assert [read_manifest(run.folder).status for run in runs] == ["preempted"] * 2
