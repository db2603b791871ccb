"""Runs that were stopped, damaged or crashed during a write end like undisturbed ones."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from quick_runs import SMALL_3D, STEPS, asset, folders, spec, stamp, stop_at

from trace_bench.run_folder.manifest import is_done, read_manifest
from trace_bench.run_folder.states import CLAIM
from trace_bench.runs.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from trace_bench.runs.run import make_asset


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Assets of uninterrupted runs, by method and representation."""
    made = {}

    def of(*overrides):
        if overrides not in made:
            outcome = make_asset(spec(tmp_path_factory.mktemp("whole"), *overrides))
            assert outcome.status == "done", outcome.message
            made[overrides] = outcome.folder
        return made[overrides]

    return of


@pytest.mark.parametrize(
    ("method", "step"), [("sds", 0), ("sds", 5), ("vsd", 1), ("vsd", 11), ("trace", 5), ("trace", 11)]
)
def test_a_stopped_run_goes_on_bit_for_bit(out, whole, method, step):
    overrides = (f"method={method}",)
    first = make_asset(spec(out, *overrides), stop_at(step))
    assert first.status == "preempted"
    assert read_manifest(first.folder).status == "preempted"
    assert load_checkpoint(first.folder, spec(out, *overrides).fingerprint, STEPS).step == step
    second = make_asset(spec(out, *overrides))
    assert second.status == "done"
    assert asset(second.folder) == asset(whole(*overrides))
    resumed, uninterrupted = read_manifest(second.folder), read_manifest(whole(*overrides))
    assert resumed.cost == uninterrupted.cost
    assert resumed.attempts == 2
    assert rows(second.folder) == rows(whole(*overrides))


def rows(folder):
    """metrics.jsonl without the times."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "steps_per_s")} for row in found]


def test_gaussians_go_on_bit_for_bit(out, whole):
    overrides = (*SMALL_3D, "rig.n_views=2")
    assert make_asset(spec(out, *overrides), stop_at(7)).status == "preempted"
    second = make_asset(spec(out, *overrides))
    assert asset(second.folder) == asset(whole(*overrides))


def test_stopped_many_times(out, whole):
    for step in (2, 3, 1, 4):
        assert make_asset(spec(out), stop_at(step)).status == "preempted"
    made = make_asset(spec(out))
    assert asset(made.folder) == asset(whole())
    assert read_manifest(made.folder).attempts == 5
    assert rows(made.folder) == rows(whole())


def test_an_interrupted_run_goes_on_even_with_force(out):
    """A requeued job still has force=true in its command, and must not start over."""
    made = make_asset(spec(out, "force=true"), stop_at(6))
    make_asset(spec(out, "force=true"))
    assert "Resuming at step 6" in (made.folder / "log.txt").read_text()


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "flipped bit": damage_flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "another's": lambda path: path.write_bytes(b"PK\x03\x04 not ours"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_starts_the_run_over_and_says_so(out, whole, how):
    first = make_asset(spec(out), stop_at(6))
    DAMAGE[how](first.folder / CHECKPOINT)
    made = make_asset(spec(out))
    assert made.status == "done"
    assert asset(made.folder) == asset(whole())
    assert rows(made.folder) == rows(whole())
    assert "is damaged" in (made.folder / "log.txt").read_text()


def test_a_checkpoint_that_does_not_fit_starts_the_run_over_and_says_so(out, whole):
    """The code may have changed what a state holds."""
    first = make_asset(spec(out), stop_at(6))
    found = load_checkpoint(first.folder, spec(out).fingerprint, STEPS)
    save_checkpoint(first.folder, dataclasses.replace(found, representation={"pixels": torch.zeros(3)}))
    made = make_asset(spec(out))
    assert made.status == "done"
    assert asset(made.folder) == asset(whole())
    assert "does not fit this version (KeyError" in (made.folder / "log.txt").read_text()


def test_a_damaged_manifest_starts_the_run_over_and_touches_no_other(command, out, capsys):
    command("-m", "prompt=0,1")
    first, second = folders(out)
    before = stamp(second)
    (first / "manifest.json").write_text('{"schema_version": 1, "sta')
    assert command("-m", "prompt=0,1") == 0
    assert is_done(first, read_manifest(first))
    assert stamp(second) == before
    assert "manifest.json cannot be read" in capsys.readouterr().out


def test_a_checkpoint_never_holds_what_is_not_finite(out, monkeypatch):
    """An optimiser may overflow after the last check of the values."""
    from trace_bench.representations.image import Image

    original = Image.post_backward

    def overflow(self, render, progress, grad_rms):
        original(self, render, progress, grad_rms)
        if progress.k == 7:
            with torch.no_grad():
                self.canvas[0, 0, 0] = torch.inf

    monkeypatch.setattr(Image, "post_backward", overflow)
    made = make_asset(spec(out))
    assert made.status == "failed"
    assert "representation.canvas became non-finite at step 7" in made.message
    assert load_checkpoint(made.folder, spec(out).fingerprint, STEPS).step == 4
    monkeypatch.undo()
    assert make_asset(spec(out)).status == "done"


class Crash(BaseException):
    """Simulates the death of the process: no exception handler catches it."""


def crash_points(out, monkeypatch, limit=None):
    """Count the disk writes at the end of a run; crash at the `limit`-th."""
    count = 0

    def guard(owner, name):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if limit is not None and count > limit:
                raise Crash
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)

    for name in ("replace", "unlink", "mkdir", "rmdir"):
        guard(Path, name)
    guard(os, "fsync")
    guard(shutil, "rmtree")
    from PIL import Image as Picture

    guard(Picture.Image, "save")
    return lambda: count


@pytest.mark.slow
def test_done_never_stands_beside_a_missing_file(tmp_path, monkeypatch, whole):
    """Crash before every write: the folder is complete or not done, and the next run finishes it."""
    start = tmp_path / "start"
    make_asset(spec(start), stop_at(STEPS - 1))
    with monkeypatch.context() as patch:
        shutil.copytree(start, tmp_path / "dry")
        counted = crash_points(tmp_path, patch)
        assert make_asset(spec(tmp_path / "dry")).status == "done"
        points = counted()
    assert points > 20
    for limit in range(points):
        out = tmp_path / f"crash{limit}"
        shutil.copytree(start, out)
        with monkeypatch.context() as patch:
            crash_points(out, patch, limit)
            with pytest.raises(Crash):
                make_asset(spec(out))
        folder = spec(out).folder
        manifest = read_manifest(folder)
        assert manifest.status != "done" or is_done(folder, manifest), limit
        assert make_asset(spec(out)).status in ("done", "skipped"), limit
        assert asset(folder) == asset(whole())
        left = {path.name for path in folder.iterdir()} - {path.name for path in whole().iterdir()}
        assert left <= {CLAIM, CHECKPOINT}, limit
        shutil.rmtree(out)
