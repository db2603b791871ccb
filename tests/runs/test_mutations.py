"""Seeded random damage to every kind of file: no traceback, nothing finished lost, no wrong `done`."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import time

import pytest
import torch
from quick_runs import spec, stop_at
from run_folders import write_score

from evaluation.metrics.ground_truth import GroundTruth
from evaluation.results.collect import collect
from evaluation.tables.method_tables import make_tables
from trace_bench.run_folder.manifest import MANIFEST
from trace_bench.runs.checkpoint import CHECKPOINT, Checkpoint, save_checkpoint
from trace_bench.runs.run import make_asset
from trace_bench.sweeps import sweep_plan
from trace_bench.sweeps.slurm import commands as slurm
from trace_bench.sweeps.slurm.submission import name_of, status_of
from trace_bench.sweeps.status import report, verify

TRUTH = {"ground_truth": GroundTruth()}
ASSET = "asset.safetensors"
ODD = (
    None, True, -1, 0, 2, 10**30, 1e308, float("nan"), float("inf"), "", "odd", "\ud800", "done", "../..",
    [], [None], [[]], {}, {"a": None}, "x" * 5000,
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run, an interrupted one, their plan, jobs, scores and caches; and the right assets."""
    base = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACE_BENCH_CACHE", str(base / "cache"))
        out = base / "outputs"
        runs = spec(out), spec(out, "method=vsd")
        assert make_asset(runs[0]).status == "done"
        assert make_asset(runs[1], stop_at(6)).status == "preempted"
        write_score(runs[0].folder, TRUTH["ground_truth"], iou=0.5, delta_e=1.0, depth_error=0.1, chamfer=0.1)
        names = [name_of(run) for run in runs]
        sweep_plan.write_plan(out, ["python"], names)
        sweep_plan.write_jobs(out, names, {"7_1": names})
        collect(out, TRUTH)
        whole = make_asset(spec(base / "whole", "method=vsd")).folder
    return base, ((runs[0].folder / ASSET).read_bytes(), (whole / ASSET).read_bytes())


def in_bytes(rng, path):
    """Flip, cut, lengthen, empty or replace."""
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data) + 1)
    kind = rng.randrange(6)
    if kind == 0 and data:
        data[place % len(data)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        data[place:place] = rng.randbytes(rng.randrange(1, 40))
    elif kind == 3:
        data.clear()
    elif kind == 4:
        data[:] = rng.randbytes(rng.randrange(1, 200))
    else:
        data[:] = b"[" * 20_000
    path.write_bytes(bytes(data))


def places(node, path=()):
    """Every (container, key) of a structure."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from places(value, (*path, key))


def in_json(rng, path):
    """Replace, remove or swap one value."""
    content = json.loads(path.read_bytes())
    node, key = rng.choice(list(places(content)))
    if rng.random() < 0.2:
        del node[key]
    elif rng.random() < 0.1:
        content = rng.choice(ODD)
    else:
        node[key] = rng.choice(ODD)
    path.write_text(json.dumps(content))


def in_checkpoint(rng, path):
    """One odd field under a valid checksum: another type, another shape, or none."""
    content = torch.load(io.BytesIO(path.read_bytes()[38:]), weights_only=True)
    node, key = rng.choice([place for place in places(content) if place[1] not in ("params", "state")])
    if rng.random() < 0.2 and not isinstance(key, int):
        del node[key]
    elif isinstance(node[key], torch.Tensor) and rng.random() < 0.5:
        node[key] = torch.zeros(rng.choice([(1,), (2, 3)]), dtype=node[key].dtype)
    elif key == "step" and isinstance(node[key], int):
        node[key] = rng.choice([-1, 0, 3, 9, 12, 13, 10**9])
    else:
        node[key] = rng.choice([None, "odd", [], {}])
    with contextlib.suppress(TypeError):  # a field is gone: keep the old file
        save_checkpoint(path.parent, Checkpoint(**content))


def damage(rng, base, finished, interrupted):
    """Change one file; returns what was done."""
    kinds = {
        "manifest of a finished run": (finished / MANIFEST, in_json),
        "manifest of an interrupted run": (interrupted / MANIFEST, in_json),
        "checkpoint": (interrupted / CHECKPOINT, in_checkpoint),
        "score": (finished / "scores/ground_truth.json", in_json),
        "cameras": (finished / "renders/cameras.json", in_json),
        "plan": (next(base.glob("outputs/sweeps/*/plan.json")), in_json),
        "jobs": (next(base.glob("outputs/sweeps/*/jobs-7.json")), in_json),
        "cache": (rng.choice(sorted(p for p in base.glob("cache/*/*") if p.is_file())), in_bytes),
        "file of a finished run": (rng.choice([p for p in files(finished) if p.name != ASSET]), in_bytes),
        "file of an interrupted run": (rng.choice(files(interrupted)), in_bytes),
    }
    name = rng.choice(list(kinds))
    path, change = kinds[name]
    change = in_bytes if rng.random() < 0.3 else change
    change(rng, path)
    return f"{name}: {path.name}, {change.__name__}"


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_everything(root):
    report(root, time.time())
    verify(root)
    make_tables(collect(root, TRUTH), TRUTH, {"method": {}, "representation": {}}, ["sds", "vsd"])


def try_one(seed, made, folder, monkeypatch):
    base, assets = made
    copy = shutil.copytree(base, folder)
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(copy / "cache"))
    root, rng = copy / "outputs", random.Random(seed)
    runs = spec(root), spec(root, "method=vsd")
    what = f"seed {seed}: " + damage(rng, copy, runs[0].folder, runs[1].folder)
    read_everything(root)
    for run, asset in zip(runs, assets, strict=True):
        before = status_of(run)
        outcome = make_asset(run)
        assert outcome.status in ("done", "skipped", "failed"), what
        assert outcome.status != "failed" or "is newer than" in outcome.message, f"{what}: {outcome.message}"
        assert before != "done" or outcome.status == "skipped", what
        if outcome.status != "failed":
            assert (run.folder / ASSET).read_bytes() == asset, what
            assert status_of(run) == "done", what
    kept = [path.read_bytes() for path in root.rglob(ASSET)]
    assert assets[0] in kept, what
    read_everything(root)
    shutil.rmtree(copy)


def try_many(seeds, made, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "is_here", lambda: False)
    for seed in seeds:
        try_one(seed, made, tmp_path / str(seed), monkeypatch)


@pytest.mark.slow
def test_fifty_mutations(made, tmp_path, monkeypatch):
    try_many(range(50), made, tmp_path, monkeypatch)


@pytest.mark.long
def test_a_thousand_mutations(made, tmp_path, monkeypatch):
    try_many(range(1000), made, tmp_path, monkeypatch)
