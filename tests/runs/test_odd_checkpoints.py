"""A checkpoint with a valid checksum but odd fields starts the run over; it never fails for ever."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from quick_runs import SMALL_3D, STEPS, asset, spec, stop_at

from trace_bench.runs import run
from trace_bench.runs.checkpoint import load_checkpoint, save_checkpoint
from trace_bench.runs.run import make_asset

GAUSSIANS = (*SMALL_3D, "rig.n_views=2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return asset(make_asset(spec(tmp_path_factory.mktemp("whole"))).folder)


@pytest.fixture(scope="module")
def whole_gaussians(tmp_path_factory):
    return asset(make_asset(spec(tmp_path_factory.mktemp("whole"), *GAUSSIANS)).folder)


def forge(folder, fingerprint, change):
    found = load_checkpoint(folder, fingerprint, STEPS)
    save_checkpoint(folder, dataclasses.replace(found, **change(found)))


def shaped(checkpoint, **changes):
    return {"representation": checkpoint.representation | changes}


def with_moments(optimizer):
    """An optimiser whose fused kernel would write beyond its memory."""
    moments = {0: optimizer["state"][0] | {"exp_avg": torch.zeros(2, 3)}}
    return optimizer | {"state": moments}


def flagged(optimizer):
    """An optimiser that maximises, because a word is true."""
    return optimizer | {"param_groups": [optimizer["param_groups"][0] | {"maximize": "no"}]}


ODD = {
    "a step beyond the run": lambda c: {"step": STEPS + 1},
    "a step that was not reached": lambda c: {"step": STEPS},
    "an earlier step": lambda c: {"step": 2},
    "a negative step": lambda c: {"step": -1},
    "a step in words": lambda c: {"step": "6"},
    "a step of true": lambda c: {"step": True},
    "no representation": lambda c: {"representation": None},
    "an empty representation": lambda c: {"representation": {}},
    "a method of another kind": lambda c: {"method": {"adapter": torch.zeros(2)}},
    "cost in words": lambda c: {"cost": c.cost | {"unet_fwd": "many"}},
    "unknown cost": lambda c: {"cost": c.cost | {"gpus": 3}},
    "no cost": lambda c: {"cost": None},
    "negative seconds": lambda c: {"seconds": c.seconds | {"total": -5.0}},
    "seconds that are no number": lambda c: {"seconds": {"total": float("nan")}},
    "one value for the whole picture": lambda c: shaped(c, canvas=torch.zeros(1, 1, 1, 1)),
    "another size": lambda c: shaped(c, canvas=torch.zeros(1, 2, 2, 3)),
    "not finite": lambda c: shaped(c, canvas=torch.full_like(c.representation["canvas"], torch.nan)),
    "moments of another shape": lambda c: shaped(c, optimizer=with_moments(c.representation["optimizer"])),
    "an optimiser in words": lambda c: shaped(c, optimizer="adam"),
    "a flag of the optimiser in words": lambda c: shaped(c, optimizer=flagged(c.representation["optimizer"])),
}


@pytest.mark.parametrize("what", ODD)
def test_the_run_starts_over_and_says_so(out, whole, what):
    first = make_asset(spec(out), stop_at(6))
    forge(first.folder, spec(out).fingerprint, ODD[what])
    made = make_asset(spec(out))
    assert made.status == "done", made.message
    assert asset(made.folder) == whole
    assert "Restarting from scratch." in (made.folder / "log.txt").read_text()


def test_a_state_whose_first_step_fails_does_not_fail_for_ever(out, whole, monkeypatch):
    """What has the right form may still fail when it is used."""
    make_asset(spec(out), stop_at(6))
    first_steps = []

    def distill(*args, first_step, **more):
        first_steps.append(first_step)
        if first_step == 6:
            raise ValueError("odd")
        return run.distill_before(*args, first_step=first_step, **more)

    monkeypatch.setattr(run, "distill_before", run.distill, raising=False)
    monkeypatch.setattr(run, "distill", distill)
    made = make_asset(spec(out))
    assert made.status == "done", made.message
    assert first_steps == [6, 0]
    assert asset(made.folder) == whole
    assert (
        "The first step after the checkpoint failed (ValueError: odd)"
        in (made.folder / "log.txt").read_text()
    )


@pytest.mark.parametrize("name", ["means", "opacities", "sh0"])
def test_gaussians_that_do_not_belong_together(out, whole_gaussians, name):
    first = make_asset(spec(out, *GAUSSIANS), stop_at(6))

    def change(checkpoint):
        params = checkpoint.representation["params"]
        return shaped(checkpoint, params=params | {name: params[name][:-1].clone()})

    forge(first.folder, spec(out, *GAUSSIANS).fingerprint, change)
    made = make_asset(spec(out, *GAUSSIANS))
    assert made.status == "done", made.message
    assert asset(made.folder) == whole_gaussians


def test_a_machine_that_fails_costs_no_checkpoint(out, monkeypatch):
    """Out of memory and a full disk say nothing about the state."""
    first = make_asset(spec(out), stop_at(6))

    def fail(*args, **kwargs):
        raise random.Random(0).choice([MemoryError, OSError])("no")

    with monkeypatch.context() as patch:
        patch.setattr("trace_bench.runs.run.distill", fail)
        assert make_asset(spec(out)).status == "failed"
    assert load_checkpoint(first.folder, spec(out).fingerprint, STEPS).step == 6
